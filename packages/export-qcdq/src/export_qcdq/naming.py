"""Names in the files of both targets, and what their types do not tell.

- What belongs to the quantizer of a layer's values is named after what it quantizes: ``relu1.scale`` for ``relu1.act_quant``,
  ``fc.input.scale`` for ``fc.input_quant``, ``conv1.weight/DQ`` for the node of ``conv1.weight_quant``.
- Zero-points and bounds are numbers of the format and not of a layer. They are named after type and value, ``uint8_128``, and
  a file has each of them once.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, fx

from export_qcdq.grid import kind_of
from quant_core.export import Program, ProgramBuilder, Provenance, constant_inputs

_SUFFIX: Final = "_quant"
_OF_THE_LAYER: Final = "act"


def told(path: str) -> str:
    """The name in a file for the path of a quantizer.

    >>> told("relu1.act_quant"), told("fc.input_quant"), told("act_quant"), told("levels")
    ('relu1', 'fc.input', '', 'levels')
    """
    owner, _, name = path.rpartition(".")
    what = name.removesuffix(_SUFFIX)
    return owner if what == _OF_THE_LAYER and what != name else ".".join(part for part in (owner, what) if part)


def part(where: Provenance, name: str) -> str:
    """The name in a file of something that belongs to a quantizer.

    >>> part(Provenance(path="relu1.act_quant", module_type="quant_nn.QuantReLU"), "scale")
    'relu1.scale'
    """
    path = told(where.path)
    return f"{path}.{name}" if path else name


def paths(program: Program) -> dict[str, str]:
    """The names of all quantizers of a program by their paths."""
    return {quantizer.where.path: told(quantizer.where.path) for quantizer in program.quantizers}


def literal(builder: ProgramBuilder, value: Tensor) -> fx.Node:
    """The constant for a number of the format: 0-dim, of any type."""
    return builder.constant(f"{str(value.dtype).removeprefix('torch.')}_{value.item():.9g}", value)


def untold_widths(program: Program, *, float_biases: bool = False) -> dict[str, int]:
    """The bit widths that are not those of the types in the file, by the name of the parameter or of the quantizer.

    Args:
        program: the model that is written.
        float_biases: whether biases are stored as floats, whose type tells no width.
    """
    names = constant_inputs(program.exported)
    operands = {node.name: node.args[0] for node in program.graph.nodes if node.op == "call_function" and node.args}
    found = {}
    for quantizer in program.quantizers:
        assert quantizer.bit_width is not None  # constant, as the check has found
        width = int(quantizer.bit_width)
        told_by_type = 32 if quantizer.role == "bias" else torch.iinfo(kind_of(quantizer)).bits
        if width != told_by_type or (float_biases and quantizer.role == "bias"):
            parameter = quantizer.integers is not None
            found[names[operands[quantizer.name].name] if parameter else told(quantizer.where.path)] = width
    return found
