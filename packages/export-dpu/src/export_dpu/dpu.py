"""Targets ``dpuv1`` and ``dpuv2``: ONNX in which each operator says the positions of its 8-bit integers, as PyXIR reads it.

- A convolution or linear layer is one node with integer weights and biases; the quantizer behind it is its ``vai_quant_out``.
- A ReLU, pool or pad between the two is a node at the position of that quantizer.
- A quantizer of an input is ``vai_quant_in`` of what takes the input.
"""

from __future__ import annotations

from export_dpu.artifact import DpuArtifact
from export_dpu.form import DPUV1, Form, form_of
from export_dpu.interpreter import Interpreter
from export_dpu.operation import position_of
from export_dpu.reader import read
from export_dpu.reading import Reading
from export_dpu.writing import write
from quant_core.export import Program, Refusal, grids
from quant_core.export.onnx import check_precision


def lower_to_dpuv1(program: Program, rounding_mode: str = "DPU") -> DpuArtifact:
    """Lower a program to the form of DPUv1: padding is an attribute of operators, weights are floats that are whole numbers.

    Args:
        program: a captured model that the target takes.
        rounding_mode: how :meth:`~quant_core.export.Artifact.run` rounds values halfway between two integers, of which the file
            says nothing: ``"DPU"``, ``"HALF_UP"`` or ``"ROUND"``.

    Raises:
        ConfigurationError: for another rounding mode.
        UnsupportedError: when a quantizer does not compute in float32.
    """
    return _lower(program, "dpuv1", DPUV1, rounding_mode)


def lower_to_dpuv2(program: Program, form: str = "0.7", rounding_mode: str = "DPU") -> DpuArtifact:
    """Lower a program to the form of DPUv2: padding is a ``Pad`` of its own.

    Args:
        program: a captured model that the target takes.
        form: ``"0.7"``, with weights as int32 and operators of the domain ``pyxir.onnx``, or ``"0.6"``, with weights as floats
            that are whole numbers and operators of ``pyxir``.
        rounding_mode: as for ``dpuv1``.

    Raises:
        ConfigurationError: for another form or rounding mode.
        UnsupportedError: when a quantizer does not compute in float32.

    >>> import onnx, torch, quant_nn as qnn
    >>> from quant_core.export import capture
    >>> from quant_core.quant import Int8ActPerTensorFixedPoint as Act, Int8WeightPerTensorFixedPoint as Weight
    >>> net = qnn.QuantLinear(4, 2, bias=False, input_quant=Act, weight_quant=Weight, output_quant=Act)
    >>> artifact = lower_to_dpuv2(capture(net, (torch.zeros(1, 4),)))
    >>> [node.op_type for node in onnx.load_from_string(artifact.content()).graph.node]
    ['Gemm']
    """
    return _lower(program, "dpuv2", form_of(form), rounding_mode)


def _lower(program: Program, target: str, form: Form, rounding_mode: str) -> DpuArtifact:
    check_precision(program, target)
    reading = read(program, target, form.pads_apart)
    assert not any(isinstance(found, Refusal) for found in reading.findings)  # as the check has found
    content, names = write(reading, form)
    Interpreter(content, rounding_mode)  # refuses a rounding mode that there is not
    return DpuArtifact(target, program.signature, content, _values(program, reading, names), rounding_mode)


def _values(program: Program, reading: Reading, names: dict[str, str]) -> dict[str, tuple[str, int]]:
    """For each node of the program that is on a grid, the value of the file that is on the same one, and its position."""
    found: dict[str, tuple[str, int]] = {}
    on_grid = grids(program)
    for node, value in reading.values.items():
        quantizer = on_grid.get(node.name)
        if quantizer is not None and value.position is not None and position_of(quantizer) == value.position:
            found[node.name] = (names[value.name], value.position)
    return found
