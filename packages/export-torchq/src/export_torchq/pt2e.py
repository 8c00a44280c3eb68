"""Target ``pt2e``: a program of ``torch.export`` in which quantization is pairs of ``quantized_decomposed`` operators.

- A quantizer of activations is a quantization to integers of 8 bits and a dequantization.
- A weight is an int8 buffer behind one dequantization per output channel. A bias is floats.
- Behind an operation that keeps the grid, such as a max pool, the pair is repeated: compilers look for one beside each operation.
- Compilers that know the pairs compute what stands between them in integers: Inductor on x86, XNNPACK through ExecuTorch. Others
  compute in floats, and give the same.
"""

from __future__ import annotations

import io
import warnings
from typing import Any, Final

import torch
from torch import fx
from torch.export import ExportedProgram

from export_torchq.exported_artifact import ExportedArtifact
from export_torchq.levels import INT8, UINT8, signed_levels, unsigned_levels, weight_of
from quant_core.errors import ConfigurationError
from quant_core.export import Program, Quantizer, constant_inputs, grids, is_quantizer
from quant_core.export.builder import ProgramBuilder
from quant_core.export.onnx.requirements import check_precision
from quant_core.export.products import product

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of torch.ao about itself
    import torch.ao.quantization.fx._decomposed  # registers the operators

FLAVORS: Final = ("x86", "xnnpack")
_pairs = torch.ops.quantized_decomposed
_aten = torch.ops.aten
_KEPT: Final = ("val", "nn_module_stack")
"""What a file says of each call; the rest is about the machine that wrote it."""


def lower(program: Program, flavor: str = "x86") -> ExportedArtifact:
    """Lower a program to a ``.pt2`` file.

    Args:
        program: a captured model that the target takes.
        flavor: ``"x86"``, whose activations are unsigned, as Inductor takes them, or ``"xnnpack"``, whose activations are signed.

    Raises:
        ConfigurationError: for another flavor.
        UnsupportedError: when a quantizer does not compute in float32.
    """
    check_flavor(flavor)
    check_precision(program, "pt2e")
    writing = _Writing(program, flavor)
    exported = writing.exported()
    stream = io.BytesIO()
    torch.export.save(exported, stream)
    return ExportedArtifact("pt2e", program.signature, stream.getvalue(), writing.shown)


def check_flavor(flavor: object) -> None:
    """Refuse a flavor that there is not.

    Raises:
        ConfigurationError: names those that there are.
    """
    if flavor not in FLAVORS:
        raise ConfigurationError(
            f"flavor={flavor!r} is not known",
            why=f"the flavors are {', '.join(map(repr, FLAVORS))}",
            fix="Use 'x86' for torch.compile on x86 CPUs, or 'xnnpack' for ExecuTorch.",
        )


class _Writing:
    """A program in the making; ``shown`` holds the name of the call that gives the value of each quantizer."""

    def __init__(self, program: Program, flavor: str) -> None:
        self.program = program
        self.shown: dict[str, str] = {}
        is_signed = flavor == "xnnpack"
        self._levels = signed_levels if is_signed else unsigned_levels
        self._range, self._type = (INT8, torch.int8) if is_signed else (UINT8, torch.uint8)
        self._builder = ProgramBuilder(program.exported)
        self._names = constant_inputs(program.exported)
        self._quantizers = {quantizer.name: quantizer for quantizer in program.quantizers}
        self._grids = grids(program)

    def exported(self) -> ExportedProgram:
        """The new program."""
        constants = frozenset(self.program.constants) | {
            q.name for q in self.program.quantizers if q.integers is not None
        }
        axes = {}
        for node in self.program.graph.nodes:
            found = product(node, constants)
            if found is not None:
                axes[found.weight] = found.output_axis
        for node in self.program.graph.nodes:
            if node.name in self._names:
                if not all(is_quantizer(user) for user in node.users):
                    name = self._names[node.name]
                    self._builder.new[node] = self._builder.constant(name, self.program.constants[node.name])
            elif node.op == "call_function" and node.target is not _aten._assert_tensor_metadata.default:
                self._write(node, axes.get(node))
        made = self._builder.finish()
        for node in made.graph.nodes:
            node.meta = {key: value for key, value in node.meta.items() if key in _KEPT}
        made._example_inputs = None  # they are the user's data
        return made

    def _write(self, node: fx.Node, axis: int | None) -> None:
        quantizer = self._quantizers.get(node.name)
        if quantizer is None:
            self._copy(node)
        elif quantizer.role == "bias":
            self._builder.new[node] = self._builder.constant(self._stored_name(node), _numbers(quantizer))
        elif quantizer.integers is not None:
            self._dequantize(node, quantizer, axis)
        else:
            operand: Any = node.args[0]
            made = self._pair(node, quantizer, self._builder.new[operand])
            self._builder.new[node] = made
            self.shown[node.name] = made.name

    def _copy(self, node: fx.Node) -> None:
        if node.target is _aten.view.default:  # results of integer convolutions have their channels last in memory
            args = fx.map_arg(node.args, self._builder.new.__getitem__)
            made = self._builder.replace(node, _aten.reshape.default, args, {})
        else:
            made = self._builder.copy(node)
        on = self._grids.get(node.name)
        if on is not None and on.role == "activation":
            self._builder.new[node] = self._pair(node, on, made)

    def _pair(self, node: fx.Node, quantizer: Quantizer, value: Any) -> fx.Node:
        """A quantization of a new value and its dequantization."""
        levels = self._levels(quantizer)
        on = (levels.scale, levels.zero_point, *self._range, self._type)
        call = self._builder.call
        quantize, dequantize = _pairs.quantize_per_tensor.default, _pairs.dequantize_per_tensor.default
        integers = call(quantize, (value, *on), like=node, name=f"{node.name}_integers")
        integers.meta["val"] = node.meta["val"].to(self._type)
        return call(dequantize, (integers, *on), like=node, name=f"{node.name}_dequantized")

    def _dequantize(self, node: fx.Node, quantizer: Quantizer, axis: int | None) -> None:
        """Stored integers, with a scale for each output channel of a product also where all are equal: so compilers know them."""
        weight = weight_of(quantizer)
        assert weight is not None  # the rules refuse others
        base, constant = self._stored_name(node), self._builder.constant
        integers = constant(base, weight.integers)
        if weight.axis is None and axis is None:
            on = (float(weight.scale), 0, *INT8, torch.int8)
            self._builder.replace(node, _pairs.dequantize_per_tensor.default, (integers, *on), {})
            return
        along = weight.axis if weight.axis is not None else axis
        assert along is not None
        count = weight.integers.shape[along]
        scale = constant(f"{base}_scale", weight.scale.expand(count).clone())
        zero_point = constant(f"{base}_zero_point", weight.zero_point.expand(count).clone())
        operands = (integers, scale, zero_point, along, *INT8, torch.int8)
        self._builder.replace(node, _pairs.dequantize_per_channel.default, operands, {})

    def _stored_name(self, node: fx.Node) -> str:
        stored: Any = node.args[0]
        return self._names[stored.name]


def _numbers(quantizer: Quantizer) -> torch.Tensor:
    """A bias as the floats that it is rounded to."""
    assert quantizer.integers is not None
    assert quantizer.scale is not None
    return quantizer.integers * quantizer.scale
