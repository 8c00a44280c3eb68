"""From a program to one whose quantized tensors are uint8 from one quantizer to the next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor, fx

from export_qcdq.channels import missing_channels
from export_qcdq.grid import kind_of
from export_qcdq.held import Held, shift_of, shown
from export_qcdq.integer_ops import RECTIFY
from export_qcdq.integer_products import IntegerProduct, of_constant, of_two
from export_qcdq.lowering import RECTIFIER, Lowering, operand
from quant_core.export import Program, Quantizer, grids, is_quantizer, landings
from quant_core.export.arguments import arguments
from quant_core.export.grid import keeps_grid, same_grid
from quant_core.export.loops import holds_loops
from quant_core.export.products import product

_aten = torch.ops.aten
_TO_NEAREST: Final = ("ROUND", "HALF_UP", "DPU")
_OF_TWO: Final = (_aten.bmm.default, _aten.matmul.default, _aten.mm.default)
_PADS: Final = (_aten.constant_pad_nd.default, _aten.pad.default)
_IN_FLOATS: Final = (
    _aten.adaptive_max_pool1d.default,
    _aten.adaptive_max_pool2d.default,
)
"""Operations that would keep a grid, and have no ONNX operator for integers."""


class IntegerLowering(Lowering):
    """A program in the making.

    Args:
        program: a captured model that the target takes.
        opset: the version of the standard operators.
        unsigned_weights: whether weights are uint8 also where they are signed.
        fill_channels: whether convolutions get input channels of zeros.
    """

    def __init__(self, program: Program, *, opset: int, unsigned_weights: bool, fill_channels: bool) -> None:
        super().__init__(program, opset=opset)
        self.unsigned_weights = unsigned_weights
        self.lacking = missing_channels(program) if fill_channels else {}
        self.held: dict[fx.Node, Held] = {}
        self.grids = grids(program)
        self.landings = landings(program)
        self.loops = holds_loops(program.graph)

    def lower_weight(self, node: fx.Node) -> None:
        """A weight is written when it is first asked for: as an operand of integers, or as floats."""
        if self.loops:
            super().lower_weight(node)

    def lower(self, node: fx.Node) -> None:
        """Put integers in the place of a node where its operands are integers, floats elsewhere and in models with loops."""
        if self.loops:
            super().lower(node)
        elif is_quantizer(node):
            self._quantize(node, self.quantizers[node.name])
        elif not self._multiply(node) and not self._move(node):
            self.copy(node)

    def value(self, node: fx.Node) -> fx.Node:
        """The floats in the place of an old node."""
        held = self.held.get(node)
        if held is not None and node not in self.builder.new:
            self.builder.new[node] = self.dequantized(node, held.quantizer, held.node, held.shift)
        return super().value(node)

    def shown(self, names: Mapping[str, str]) -> tuple[dict[str, str], dict[str, tuple[Tensor, Tensor]]]:
        """From the names of ONNX values by the nodes of the new program, to those by the nodes of the old one.

        Returns:
            The name of the ONNX value of each node that has one, and the grid of those that are integers.
        """
        found, on = {}, {}
        for node in self.program.graph.nodes:
            held = self.held.get(node)
            if held is not None and node.name in self.grids and held.name in names:
                found[node.name] = names[held.name]
                on[node.name] = held.scale, torch.tensor(float(held.zero_point))
            elif held is None and node.name in names:
                found[node.name] = names[node.name]
        return found, on

    def landing(self, node: fx.Node) -> Quantizer | None:
        """The quantizer that a sum of products comes to, where an integer operator can round to it."""
        quantizer = self.landings.get(node.name)
        if quantizer is None or not _is_held(quantizer):
            return None
        alike = [other for other in self.quantizers.values() if other.integers is None and same_grid(other, quantizer)]
        return quantizer if all(other.rounding_mode == "ROUND" for other in alike) else None

    def _quantize(self, node: fx.Node, quantizer: Quantizer) -> None:
        before = self.held.get(operand(node))
        if not _is_held(quantizer):
            super().lower(node)
        elif before is not None and same_grid(before.quantizer, quantizer) and _rounds_to_nearest(quantizer):
            self.held[node] = Held(node=before.node, quantizer=quantizer, name=before.name)
        else:
            integers = self.integers(node, quantizer, torch.uint8, shift_of(quantizer), shown(node))
            self.held[node] = Held(node=integers, quantizer=quantizer, name=shown(node))

    def _multiply(self, node: fx.Node) -> bool:
        """Compute a product of integers as such; whether it is one."""
        found = self._product(node)
        if found is None:
            return False
        quantizer = self.landing(node) if found.can_land else None
        if quantizer is None:
            self.builder.new[node] = found.value(self)
        else:
            landed = found.landed(self, quantizer)
            self.held[node] = Held(node=landed, quantizer=quantizer, name=shown(node))
        return True

    def _product(self, node: fx.Node) -> IntegerProduct | None:
        found = product(node, self.weights)
        if found is not None:
            x = self.held.get(found.x)
            return (
                None
                if x is None
                else of_constant(
                    self, found, x, unsigned=self.unsigned_weights, lacks=self.lacking.get(found.weight.name, 0)
                )
            )
        operands = [self.held.get(used) if isinstance(used, fx.Node) else None for used in node.args]
        if node.target not in _OF_TWO or len(operands) != 2 or operands[0] is None or operands[1] is None:
            return None
        return of_two(self, node, operands[0], operands[1])

    def _move(self, node: fx.Node) -> bool:
        """Do an operation that moves or selects values with the integers; whether it is one."""
        tensors = [used for used in node.all_input_nodes if isinstance(used.meta.get("val"), Tensor)]
        operands = [self.held.get(used) for used in tensors]
        first = operands[0] if operands else None
        sources = [None if held is None else held.quantizer for held in operands]
        if first is None or not keeps_grid(node, sources) or any(held is None for held in operands):
            return False
        if node.target in _IN_FLOATS:
            return False
        name = f"{node.name}_integers"
        if node.target is RECTIFIER and first.zero_point == 0:
            self.held[node] = first  # there is nothing below
            return True
        if node.target is RECTIFIER:
            options = {"name": shown(node)}
            new = self.call(RECTIFY, (first.node, first.zero(self)), options, like=node, name=name, kind=torch.uint8)
        else:
            args, kwargs = (fx.map_arg(part, self._integers_of) for part in _padded(node, first))
            new = self.call(node.target, args, kwargs, like=node, name=name, kind=torch.uint8)
        told = shown(node) if new.target is RECTIFY else name
        self.held[node] = Held(node=new, quantizer=first.quantizer, name=told)
        return True

    def _integers_of(self, used: fx.Node) -> fx.Node:
        """The integers of a tensor; a size is what it is."""
        held = self.held.get(used)
        return self.value(used) if held is None else held.node


def _is_held(quantizer: Quantizer) -> bool:
    """Whether the integers of a quantizer are of 8 bits, with one scale."""
    return quantizer.granularity == "per_tensor" and kind_of(quantizer) in (torch.int8, torch.uint8)


def _rounds_to_nearest(quantizer: Quantizer) -> bool:
    """Whether levels stay what they are: rounding down may drop one whose float lies just below it."""
    return quantizer.op == "quant::int" and quantizer.rounding_mode in _TO_NEAREST


def _padded(node: fx.Node, held: Held) -> tuple[Any, Any]:
    """The arguments of an operation on integers: zeros around them are the integer that stands for 0."""
    if node.target not in _PADS:
        return node.args, node.kwargs
    given = arguments(node)
    if given.get("mode", "constant") == "constant":
        given["value"] = held.zero_point
    return tuple(given.values()), {}
