"""One step of an LSTM in a program, read from its operations, with the quantizers that stand between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import fx

from quant_core.export import is_quantizer

_aten = torch.ops.aten
_GATES: Final = {4: ("input", "forget", "cell", "output"), 3: ("input", "cell", "output")}
_INTEGER: Final = torch.ops.quant.int.default
OTHER: Final = "steps that are not those of an LSTM"
SLOTS: Final = (
    "output",
    "cell_state",
    "input_acc",
    "forget_acc",
    "cell_acc",
    "output_acc",
    "input_sigmoid",
    "forget_sigmoid",
    "cell_tanh",
    "output_sigmoid",
    "hidden_state_tanh",
)
"""The quantizers of a pass, as ``QuantLSTMCell`` names and orders them."""


class Unlike(Exception):
    """Why operations are no pass of a quantized LSTM.

    Args:
        node: where.
        actual: what stands there.
    """

    def __init__(self, node: fx.Node, actual: str) -> None:
        super().__init__(actual)
        self.node, self.actual = node, actual


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step.

    Attributes:
        product: the product with the hidden state before the step.
        coupled: whether the forget gate is made of the input gate.
        quantizers: the quantizer nodes by their slot.
        entry: the first operation on the cell state before the step.
        hidden: the hidden state after the step.
        cell: the cell state after the step.
        body: all of its operations.
    """

    product: fx.Node
    coupled: bool
    quantizers: dict[str, fx.Node]
    entry: fx.Node
    hidden: fx.Node
    cell: fx.Node
    body: tuple[fx.Node, ...]


def read_step(product: fx.Node) -> Step:
    """The step of a product with the hidden state.

    Raises:
        Unlike: when it is none of an LSTM, or not all of its quantizers are there.
    """
    return _Reading(product).step()


class _Reading:
    """Follows the operations of one step."""

    def __init__(self, product: fx.Node) -> None:
        self.product = product
        self.body: list[fx.Node] = [product]
        self.quantizers: dict[str, fx.Node] = {}
        self.missing: list[str] = []

    def step(self) -> Step:
        chunk = self._next(self.product, _aten.chunk.default)
        names = _GATES.get(chunk.args[1])  # type: ignore[arg-type]
        if names is None:
            raise Unlike(self.product, OTHER)
        parts = {names[part.args[1]]: part for part in chunk.users}  # type: ignore[index]
        self.body += parts.values()
        coupled = "forget" not in parts
        i = self._gate(parts["input"], "input", "sigmoid")
        if coupled:
            f = self._quantized(self._next(i, _aten.rsub.Scalar), "forget_sigmoid")
            self._alike("forget_sigmoid", "input_sigmoid")
            self.quantizers["forget_acc"] = self.quantizers.get("input_acc", f)
        else:
            f = self._gate(parts["forget"], "forget", "sigmoid")
        g = self._gate(parts["cell"], "cell", "tanh")
        o = self._gate(parts["output"], "output", "sigmoid")
        entry = self._first_of(f, _aten.mul.Tensor)
        kept = self._quantized(entry, "cell_state")
        added = self._quantized(self._next(g, _aten.mul.Tensor, i), "cell_state")
        cell = self._quantized(self._next(kept, _aten.add.Tensor, added, turned=True), "cell_state")
        squashed = self._quantized(self._next(cell, _aten.tanh.default), "hidden_state_tanh")
        product = self._next(squashed, _aten.mul.Tensor, o)
        if any(user.target is _aten.linear.default for user in product.users):
            raise Unlike(self.product, "a projection of its hidden state")
        hidden = self._quantized(product, "output")
        if self.missing:
            names_of = ", ".join(f"{name}_quant" for name in dict.fromkeys(self.missing))
            raise Unlike(self.product, f"quantizers that are off or not of integers ({names_of})")
        return Step(
            product=self.product,
            coupled=coupled,
            quantizers=self.quantizers,
            entry=entry,
            hidden=hidden,
            cell=cell,
            body=tuple(self.body),
        )

    def _gate(self, part: fx.Node, name: str, function: str) -> fx.Node:
        before = self._quantized(part, f"{name}_acc")
        target = getattr(_aten, function).default
        return self._quantized(self._next(before, target), f"{name}_{function}")

    def _next(self, node: fx.Node, target: Any, first: fx.Node | None = None, *, turned: bool = False) -> fx.Node:
        """The one operation of a kind that takes a value: behind another operand, or in front of it with ``turned``."""
        wanted = (node,) if first is None else (node, first) if turned else (first, node)
        found = [user for user in node.users if user.target is target and user.args[: len(wanted)] == wanted]
        return self._one(node, found)

    def _first_of(self, node: fx.Node, target: Any) -> fx.Node:
        """The one operation of a kind whose first operand a value is, and whose second is from before the step."""
        inside = set(self.body)
        return self._one(
            node,
            [u for u in node.users if u.target is target and u.args[0] is node and u.args[1] not in inside],
        )

    def _one(self, node: fx.Node, found: list[fx.Node]) -> fx.Node:
        if len(found) != 1:
            raise Unlike(self.product, OTHER)
        self.body.append(found[0])
        return found[0]

    def _quantized(self, node: fx.Node, slot: str) -> fx.Node:
        """The quantizer of a value; the value where it has none, which is noted."""
        found = [user for user in node.users if is_quantizer(user) and user.args[0] is node]
        if len(found) != 1 or found[0].target is not _INTEGER:
            self.missing.append(slot)
            self.body += found
            return found[0] if len(found) == 1 else node
        self.body.append(found[0])
        if slot in self.quantizers and not _same_grid(self.quantizers[slot], found[0]):
            raise Unlike(self.product, f"several grids in the place of {slot}_quant")
        self.quantizers[slot] = found[0]
        return found[0]

    def _alike(self, slot: str, other: str) -> None:
        held = [self.quantizers.get(name) for name in (slot, other)]
        if held[0] is not None and held[1] is not None and not _same_grid(held[0], held[1]):
            raise Unlike(self.product, "a coupled forget gate on another grid than the input gate")


def _same_grid(one: fx.Node, other: fx.Node) -> bool:
    return one.args[1:] == other.args[1:] and one.kwargs == other.kwargs
