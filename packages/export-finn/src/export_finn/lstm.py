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

from export_finn.lstm_step import OTHER, Step, Unlike, read_step
from quant_core.export import Program

_aten = torch.ops.aten
_WHOLE: Final = (_aten.lstm.input, _aten.lstm.data, _aten.gru.input, _aten.rnn_tanh.input, _aten.rnn_relu.input)


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
        raise Unlike(product, OTHER)
    if linear.target is not _aten.linear.default:
        raise Unlike(product, OTHER)
    steps = [read_step(product)]
    while (following := _following(steps[-1], unbind)) is not None:
        steps.append(read_step(following))
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
