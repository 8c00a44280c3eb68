"""From a program to one in which each quantizer is in the form that ONNX wants: what both targets share.

- An activation quantizer becomes ``QuantizeLinear`` → (``Clip``) → ``DequantizeLinear``. What ``QuantizeLinear`` cannot say
  (another rounding mode, binary and ternary levels, truncation, a part of the range of 16 bits) is computed by float operators
  that give whole numbers, which ``QuantizeLinear`` with a scale of 1 makes integers.
- A weight or a bias is stored as integers behind one ``DequantizeLinear``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from export_qcdq.grid import grid
from export_qcdq.ops import DEQUANTIZE, LEVELS, QUANTIZE, SIGN, TERNARY
from export_qcdq.packing import storage
from quant_core.export import Program, ProgramBuilder, Quantizer, constant_inputs, is_quantizer
from quant_core.export.ranges import bounds


class Lowering:
    """A program in the making.

    Args:
        program: a captured model that the target takes.
        opset: the version of the standard operators.
        packed: whether weights are stored two or four in a byte.
        exact_ties: whether activations with a zero-point are rounded by a sequence.
        float_biases: whether biases are stored as the floats that they are rounded to.
    """

    def __init__(
        self,
        program: Program,
        *,
        opset: int,
        packed: bool = False,
        exact_ties: bool = False,
        float_biases: bool = False,
    ) -> None:
        self.program = program
        self.opset = opset
        self.packed = packed
        self.exact_ties = exact_ties
        self.float_biases = float_biases
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
        """Take over a node that computes in floats."""
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
        new.meta["val"] = like.meta["val"].to(kind)
        return new

    def integers(
        self, node: fx.Node, quantizer: Quantizer, kind: torch.dtype, shift: int = 0, shown: str = ""
    ) -> fx.Node:
        """The integers that an activation quantizer gives, moved by ``shift``, in an integer type.

        With ``shown`` the ONNX value of the integers is told by that name.
        """
        part, name = quantizer.where.part, f"{node.name}_integers"
        on, (low, high) = grid(quantizer), (bound + shift for bound in bounds(quantizer))
        levels = self._levels(node, quantizer)
        if levels is not None:
            one, zero = (
                self._number(part("one"), 1.0),
                self.builder.constant(part("zero"), torch.tensor(shift).to(kind)),
            )
            options = {"axis": 1, "name": shown}
            return self.call(QUANTIZE, (levels, one, zero, []), options, like=node, name=name, kind=kind)
        limits = torch.iinfo(kind)
        clipped = [] if (low, high) == (limits.min, limits.max) else [("low", low), ("high", high)]
        operands = (
            self.value(operand(node)),
            self.builder.constant(part("scale"), on.scale),
            self.builder.constant(part("zero_point"), (on.zero_point + shift).to(kind)),
            [self.builder.constant(part(word), torch.tensor(bound, dtype=kind)) for word, bound in clipped],
        )
        options = {"axis": on.axis, "name": shown}
        return self.call(QUANTIZE, operands, options, like=node, name=name, kind=kind)

    def dequantized(self, node: fx.Node, quantizer: Quantizer, integers: fx.Node, shift: int = 0) -> fx.Node:
        """The values of the integers of an activation quantizer; ``node`` is the one that has them."""
        part, on = quantizer.where.part, grid(quantizer)
        kind = integers.meta["val"].dtype
        operands = (
            integers,
            self.builder.constant(part("scale"), on.scale),
            self.builder.constant(part("zero_point"), (on.zero_point + shift).to(kind)),
        )
        options = {"axis": on.axis, "block": 0, "storage": "", "name": node.name}
        return self.builder.call(DEQUANTIZE, operands, options, like=node, name=node.name)

    def stored(self, node: fx.Node, quantizer: Quantizer) -> fx.Node:
        """A weight or a bias behind ``DequantizeLinear``."""
        base, on = self.base(node), grid(quantizer)
        assert quantizer.integers is not None
        if quantizer.role == "bias" and self.float_biases:
            return self.builder.constant(base, self.program_value(node, quantizer))
        packed = storage(quantizer, self.opset) if self.packed and quantizer.role == "weight" else ""
        integers = quantizer.integers.to(torch.int32 if quantizer.role == "bias" else kind_of(quantizer))
        zero_point = None
        if bool(torch.any(on.zero_point != 0)):
            zero_point = self.builder.constant(f"{base}_zero_point", on.zero_point.to(integers.dtype))
        operands = (self.builder.constant(base, integers), self.builder.constant(f"{base}_scale", on.scale), zero_point)
        options = {"axis": on.axis, "block": on.block, "storage": packed, "name": ""}
        return self.builder.call(DEQUANTIZE, operands, options, like=node, name=node.name)

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

    def _levels(self, node: fx.Node, quantizer: Quantizer) -> fx.Node | None:
        """The whole numbers that a quantizer gives, as floats; ``None`` where ``QuantizeLinear`` gives them itself."""
        part, name = quantizer.where.part, f"{node.name}_levels"
        x = self.value(operand(node))
        if quantizer.op == "quant::binary":
            return self.builder.call(SIGN, (x,), like=node, name=name)
        assert quantizer.scale is not None  # constant, as the check has found
        if quantizer.op == "quant::ternary":
            threshold = self.builder.constant(part("threshold"), _threshold(node, quantizer))
            return self.builder.call(TERNARY, (x, threshold), like=node, name=name)
        low, high = bounds(quantizer)
        zero_point: Any = quantizer.zero_point
        moved = bool(torch.any(zero_point != 0))
        scale, factor = quantizer.scale.detach().to(torch.float32), None
        if quantizer.op == "quant::trunc":
            scale = self.program.constant(node.args[1])  # type: ignore[assignment]
            ratio = quantizer.scale.detach() / scale
            factor = torch.exp2(-torch.round(torch.log2(ratio))).to(torch.float32)
        elif quantizer.rounding_mode == "ROUND" and not (moved and self.exact_ties) and not _part_of_16(quantizer):
            return None
        offset = self.builder.constant(part("offset"), zero_point.detach().to(torch.float32)) if moved else None
        word = "scale" if scale.dim() == 0 and factor is None else "divisor"
        operands = (
            x,
            self.builder.constant(part(word), scale.to(torch.float32)),
            offset,
            None if factor is None else self.builder.constant(part("factor"), factor),
            self._number(part("least"), low),
            self._number(part("most"), high),
        )
        return self.builder.call(LEVELS, operands, {"mode": quantizer.rounding_mode}, like=node, name=name)

    def _number(self, name: str, value: float) -> fx.Node:
        return self.builder.constant(name, torch.tensor(float(value)))


def kind_of(quantizer: Quantizer) -> torch.dtype:
    """The smallest integer type that holds the range of a quantizer and its zero-point."""
    low, high = bounds(quantizer)
    signed = quantizer.signed or quantizer.op in ("quant::binary", "quant::ternary")
    kinds = (torch.int8, torch.int16) if signed else (torch.uint8, torch.uint16)
    return next(kind for kind in kinds if torch.iinfo(kind).min <= low and high <= torch.iinfo(kind).max)


def operand(node: fx.Node) -> fx.Node:
    """What a node works on first."""
    found = node.args[0]
    assert isinstance(found, fx.Node)
    return found


def _part_of_16(quantizer: Quantizer) -> bool:
    """Whether integers of 16 bits would have to be clipped, which runtimes do not do."""
    kind = kind_of(quantizer)
    limits = torch.iinfo(kind)
    return limits.bits == 16 and bounds(quantizer) != (limits.min, limits.max)


def _threshold(node: fx.Node, quantizer: Quantizer) -> Tensor:
    assert quantizer.scale is not None
    factor: Any = node.kwargs["threshold"]
    return (float(factor) * quantizer.scale.detach()).to(torch.float32)
