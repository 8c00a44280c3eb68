"""From a program to one in which each quantizer is in the form that ONNX wants: what both targets share.

- An activation quantizer becomes ``QuantizeLinear`` → (``Clip``) → ``DequantizeLinear``. What ``QuantizeLinear`` cannot say
  (another rounding mode, binary and ternary levels, truncation, a part of the range of 16 bits) is computed by float operators
  that give whole numbers, which ``QuantizeLinear`` with a scale of 1 makes integers.
- A weight or a bias is stored as integers behind one ``DequantizeLinear``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from export_qcdq.channels import filled, sides
from export_qcdq.grid import grid, kind_of
from export_qcdq.levels import levels
from export_qcdq.naming import literal, part
from export_qcdq.ops import DEQUANTIZE, QUANTIZE
from export_qcdq.packing import storage
from quant_core.export import Program, ProgramBuilder, Quantizer, constant_inputs, is_quantizer
from quant_core.export.ranges import bounds

_aten = torch.ops.aten
_NOTHING: Final[Mapping[str, int]] = MappingProxyType({})
_PAD: Final = _aten.constant_pad_nd.default
RECTIFIER: Final = _aten.relu.default


class Lowering:
    """A program in the making.

    Args:
        program: a captured model that the target takes.
        opset: the version of the standard operators.
        packed: whether weights are stored two or four in a byte.
        exact_ties: whether activations with a zero-point are rounded by a sequence.
        float_biases: whether biases are stored as the floats that they are rounded to.
        missing: how many channels of zeros are added to operands of convolutions, by the names of their quantizers.
    """

    def __init__(
        self,
        program: Program,
        *,
        opset: int,
        packed: bool = False,
        exact_ties: bool = False,
        float_biases: bool = False,
        missing: Mapping[str, int] = _NOTHING,
    ) -> None:
        self.program = program
        self.opset = opset
        self.packed = packed
        self.exact_ties = exact_ties
        self.float_biases = float_biases
        self.missing = missing
        self.builder = ProgramBuilder(program.exported)
        self.names = constant_inputs(program.exported)
        self.quantizers = {quantizer.name: quantizer for quantizer in program.quantizers}
        self.weights = frozenset(name for name, quantizer in self.quantizers.items() if quantizer.integers is not None)

    def exported(self) -> ExportedProgram:
        """The new program."""
        for node in self.program.graph.nodes:
            if node.name in self.weights:
                self.lower_weight(node)
            elif node.op == "call_function":
                self.lower(node)
        for node in self.program.graph.output_node().all_input_nodes:
            self.value(node)
        return self.builder.finish()

    def lower(self, node: fx.Node) -> None:
        """Put something in the place of a node that is no constant."""
        if is_quantizer(node):
            quantizer = self.quantizers[node.name]
            integers = self.integers(node, quantizer, kind_of(quantizer))
            self.builder.new[node] = self.dequantized(node, quantizer, integers)
        else:
            self.copy(node)

    def lower_weight(self, node: fx.Node) -> None:
        """Put something in the place of a weight or a bias: where it stands, and not inside of a loop that reads it."""
        self.value(node)

    def copy(self, node: fx.Node) -> None:
        """Take over a node that computes in floats, but for a ReLU that cuts off what the quantizers behind it cut off."""
        if node.target is RECTIFIER and all(self._starts_at_zero(user) for user in node.users):
            self.value(operand(node))
            self.builder.drop(node)
            return
        for used in node.all_input_nodes:
            self.value(used)
        self.builder.copy(node)

    def value(self, node: fx.Node) -> fx.Node:
        """The new node in the place of an old one; what is constant is made when it is first asked for."""
        if node not in self.builder.new:
            if node.name in self.weights:
                self.builder.new[node] = self.stored(node, self.quantizers[node.name])
            else:
                self.builder.new[node] = self.builder.constant(self.names[node.name], self.program.constants[node.name])
        new: fx.Node = self.builder.new[node]
        return new

    def call(
        self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, like: fx.Node, name: str, kind: torch.dtype
    ) -> fx.Node:
        """Add a call whose result has the shape of that of a node, and another type."""
        new = self.builder.call(target, args, kwargs, like=like, name=name)
        new.meta["val"] = self._wide(like, like.meta["val"]).to(kind)
        return new

    def integers(
        self, node: fx.Node, quantizer: Quantizer, kind: torch.dtype, shift: int = 0, shown: str = ""
    ) -> fx.Node:
        """The integers that an activation quantizer gives, moved by ``shift``, in an integer type.

        With ``shown`` the ONNX value of the integers is told by that name.
        """
        name = f"{node.name}_integers"
        on, (low, high) = grid(quantizer), (bound + shift for bound in bounds(quantizer))
        x = self._input(node)
        found = levels(self.builder, self.program, node, quantizer, x, exact_ties=self.exact_ties)
        if found is not None:
            whole = self.call(*found, like=node, name=f"{node.name}_levels", kind=torch.float32)
            one = literal(self.builder, torch.tensor(1.0))
            zero = self._zero_point(quantizer, torch.tensor(shift, dtype=kind))
            options = {"axis": 1, "name": shown}
            return self.call(QUANTIZE, (whole, one, zero, []), options, like=node, name=name, kind=kind)
        limits = torch.iinfo(kind)
        clipped = [] if (low, high) == (limits.min, limits.max) else [low, high]
        operands = (
            x,
            self.builder.constant(part(quantizer.where, "scale"), on.scale),
            self._zero_point(quantizer, (on.zero_point + shift).to(kind)),
            [literal(self.builder, torch.tensor(bound, dtype=kind)) for bound in clipped],
        )
        options = {"axis": on.axis, "name": shown}
        return self.call(QUANTIZE, operands, options, like=node, name=name, kind=kind)

    def dequantized(self, node: fx.Node, quantizer: Quantizer, integers: fx.Node, shift: int = 0) -> fx.Node:
        """The values of the integers of an activation quantizer; ``node`` is the one that has them."""
        on, kind = grid(quantizer), integers.meta["val"].dtype
        operands = (
            integers,
            self.builder.constant(part(quantizer.where, "scale"), on.scale),
            self._zero_point(quantizer, (on.zero_point + shift).to(kind)),
        )
        options = {"axis": on.axis, "block": 0, "storage": "", "name": node.name}
        return self.call(DEQUANTIZE, operands, options, like=node, name=node.name, kind=torch.float32)

    def stored(self, node: fx.Node, quantizer: Quantizer) -> fx.Node:
        """A weight or a bias behind ``DequantizeLinear``."""
        base, on = self.base(node), grid(quantizer)
        assert quantizer.integers is not None
        if quantizer.role == "bias" and self.float_biases:
            return self.builder.constant(base, self.program_value(node, quantizer))
        packed = storage(quantizer, self.opset) if self.packed and quantizer.role == "weight" else ""
        integers = quantizer.integers.to(torch.int32 if quantizer.role == "bias" else kind_of(quantizer))
        if node.name in self.missing:
            integers = filled(integers, quantizer.zero_point, self.missing[node.name])  # type: ignore[arg-type]
        zero_point = None
        if bool(torch.any(on.zero_point != 0)):
            zero_point = self.builder.constant(f"{base}_zero_point", on.zero_point.to(integers.dtype))
        operands = (self.builder.constant(base, integers), self.builder.constant(f"{base}_scale", on.scale), zero_point)
        options = {"axis": on.axis, "block": on.block, "storage": packed, "name": ""}
        return self.call(DEQUANTIZE, operands, options, like=node, name=node.name, kind=torch.float32)

    def base(self, node: fx.Node) -> str:
        """The name of the parameter that a node holds quantized."""
        return self.names[operand(node).name]

    def program_value(self, node: fx.Node, quantizer: Quantizer) -> Tensor:
        """The floats that a parameter is rounded to."""
        assert quantizer.integers is not None
        assert quantizer.scale is not None
        assert quantizer.zero_point is not None
        value: Tensor = (quantizer.integers.to(quantizer.scale.dtype) - quantizer.zero_point) * quantizer.scale
        return value.detach().to(torch.float32)

    def _input(self, node: fx.Node) -> fx.Node:
        """What an activation quantizer reads."""
        x = self.value(operand(node))
        if node.name not in self.missing:
            return x
        pads = sides(node.meta["val"].dim(), self.missing[node.name])
        return self.call(_PAD, (x, pads, 0.0), {}, like=node, name=f"{node.name}_filled", kind=torch.float32)

    def _wide(self, node: fx.Node, value: Tensor) -> Tensor:
        """A value as large as that of a node that gets more channels."""
        if node.name not in self.missing:
            return value
        wide: Tensor = _PAD(value, sides(value.dim(), self.missing[node.name]))
        return wide

    def _starts_at_zero(self, node: fx.Node) -> bool:
        """Whether a node is a quantizer of activations whose lowest level is 0."""
        quantizer = self.quantizers.get(node.name)
        if quantizer is None or quantizer.op != "quant::int":
            return False
        return bool(torch.all(quantizer.zero_point == bounds(quantizer)[0]))  # type: ignore[arg-type]

    def _zero_point(self, quantizer: Quantizer, value: Tensor) -> fx.Node | None:
        """The constant for a zero-point; ``None`` for a uint8 of 0, which holds without one.

        DequantizeLinear could do without one of 0 of any type. But onnxruntime moves it past other operators, and puts a
        QuantizeLinear to uint8 before them where there is none.
        """
        if value.dtype is torch.uint8 and not bool(value.any()):
            return None
        if value.dim() == 0:
            return literal(self.builder, value)
        return self.builder.constant(part(quantizer.where, "zero_point"), value)


def operand(node: fx.Node) -> fx.Node:
    """What a node works on first."""
    found = node.args[0]
    assert isinstance(found, fx.Node)
    return found
