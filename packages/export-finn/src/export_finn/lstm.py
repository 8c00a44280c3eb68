"""Where a program computes an LSTM step after step: told by its operations, whatever layer they come from.

A step is ``addmm`` of the hidden state, chunks for the gates, and ``c' = Q(Q(f·c) + Q(i·g))``, ``h' = Q(o·Q(tanh(c')))`` with
quantizers in front of the gates' functions and behind them. Steps that hand on their states are one pass over a sequence.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import torch
from torch import fx

from quant_core.export import Program, is_quantizer

_aten = torch.ops.aten
_GATES: Final = {4: ("input", "forget", "cell", "output"), 3: ("input", "cell", "output")}
_WHOLE: Final = (_aten.lstm.input, _aten.lstm.data, _aten.gru.input, _aten.rnn_tanh.input, _aten.rnn_relu.input)
_INTEGER: Final = torch.ops.quant.int.default
_OTHER: Final = "steps that are not those of an LSTM"
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


@dataclass(frozen=True, kw_only=True)
class Pass:
    """An LSTM that reads a sequence in one direction.

    Attributes:
        linear: the product of the whole sequence ``(T, B, I)`` with the weights of all gates, and their bias.
        steps: in the order in which they are computed.
        reverse: whether the last of the sequence comes first.
        outputs: the hidden states in the order of time, ``(T, B, H)``; ``None`` where nothing takes them.
        body: all operations, also those of ``outputs``.
    """

    linear: fx.Node
    steps: tuple[Step, ...]
    reverse: bool
    outputs: fx.Node | None
    body: frozenset[fx.Node]

    @property
    def entry(self) -> fx.Node:
        """Where everything that the pass starts from is computed."""
        return self.steps[0].entry

    @property
    def coupled(self) -> bool:
        """Whether the forget gate is made of the input gate."""
        return self.steps[0].coupled


def passes(program: Program) -> Iterator[Pass | Unlike]:
    """The passes of LSTMs in a program, in order, and what else computes a sequence step after step."""
    seen: set[fx.Node] = set()
    for node in program.graph.nodes:
        if node.target in _WHOLE:
            yield Unlike(node, "nothing but its weights quantized")
        if node.target is not _aten.addmm.default or node in seen or (moment := _moment(node)) is None:
            continue
        try:
            found = _pass(node)
        except Unlike as unlike:
            # The steps of what is refused are refused once.
            seen |= {user for one in moment.args[0].users for user in _products(one)}  # type: ignore[union-attr]
            yield unlike
        else:
            seen |= found.body
            yield found


def _products(part: fx.Node) -> Iterator[fx.Node]:
    for user in part.users:
        yield from [user] if user.target is _aten.addmm.default else user.users


def _moment(product: fx.Node) -> fx.Node | None:
    """The part of a sequence that belongs to a step, where there is one."""
    part: Any = product.args[0]
    while isinstance(part, fx.Node) and part.target is _aten.slice.Tensor:
        part = part.args[0]
    if not isinstance(part, fx.Node) or part.target is not operator.getitem:
        return None
    return part if getattr(part.args[0], "target", None) is _aten.unbind.int else None


def _pass(product: fx.Node) -> Pass:
    moment = _moment(product)
    assert moment is not None
    unbind: Any = moment.args[0]
    linear = unbind.args[0]
    if moment is not product.args[0]:
        raise Unlike(product, _OTHER)
    if linear.target is not _aten.linear.default:
        raise Unlike(product, "sequences of several lengths")
    steps = [_step(product)]
    while (following := _following(steps[-1], unbind)) is not None:
        steps.append(_step(following))
    for before, after in pairwise(steps):
        if after.entry.args[1] is not before.cell or _parameters(after) != _parameters(steps[0]):
            raise Unlike(after.product, "steps that differ")
    times = [int(step.product.args[0].args[1]) for step in steps]  # type: ignore[union-attr, arg-type]
    count, reverse = len(unbind.meta["val"]), times[0] > times[-1]
    if times != (list(range(count))[::-1] if reverse else list(range(count))):
        raise Unlike(product, "steps that are not in the order of time")
    hidden = [step.hidden for step in steps]
    outputs = _joined(hidden[::-1] if reverse else hidden)
    inside = {linear, unbind, *unbind.users, *(node for step in steps for node in step.body)}
    inside |= {outputs} if outputs is not None else set()
    inside |= {user for node in inside for user in node.users if not user.users and user.op != "output"}
    results = {outputs, steps[-1].hidden, steps[-1].cell}
    for node in inside - results:
        if any(user not in inside for user in node.users):
            raise Unlike(node, "a value inside of it that is used elsewhere")
    return Pass(linear=linear, steps=tuple(steps), reverse=reverse, outputs=outputs, body=frozenset(inside))


def _following(step: Step, unbind: fx.Node) -> fx.Node | None:
    found = [user for user in step.hidden.users if user.target is _aten.addmm.default and user.args[1] is step.hidden]
    return next((user for user in found if (moment := _moment(user)) is not None and moment.args[0] is unbind), None)


def _parameters(step: Step) -> Any:
    """What all steps have in common: the hidden weights, and the grid of each quantizer."""
    weight: Any = step.product.args[2]
    grids = {name: (node.args[1:], dict(node.kwargs)) for name, node in step.quantizers.items()}
    return step.coupled, weight.args, dict(weight.kwargs), grids


def _joined(hidden: list[fx.Node]) -> fx.Node | None:
    for user in hidden[0].users:
        if user.target is _aten.stack.default and user.args[0] == hidden and user.args[1:] in ((), (0,)):
            return user
    return None


def _step(product: fx.Node) -> Step:
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
            raise Unlike(self.product, _OTHER)
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
            raise Unlike(self.product, _OTHER)
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
