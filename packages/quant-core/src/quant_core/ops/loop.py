"""Ops around one step of a recurrent layer, which make it a loop over a time axis of varying length.

A captured program stays one flat graph. What lies between these ops is computed once for each step:

========================= ===========================================================================================
op                        meaning
========================= ===========================================================================================
``quant::loop_input``     the slice of a sequence ``(T, …)`` that belongs to this step; from the end with ``reverse``
``quant::loop_state``     the state before this step: ``initial`` before the first one
``quant::loop_last``      the state of a number after the last step
``quant::loop_outputs``   what each step gave, joined in the order of time, ``(T, …)``
========================= ===========================================================================================

They belong together by their operands: a state names the input of its step, and outputs the input and its sequence. Each result
names all states and what a step makes of them, so that a step hands on also the states whose last value nobody wants. Only
captured programs hold them, and :class:`quant_core.export.loops.LoopInterpreter` runs them.

>>> from torch.export import Dim, export
>>> class Sum(torch.nn.Module):
...     def forward(self, x):
...         now = loop_input(x, reverse=False)
...         before = loop_state(torch.zeros(2), now, 0)
...         after = before + now
...         return loop_outputs(after, now, x, [after], [before]), loop_last([after], [before], 0)
>>> program = export(Sum(), (torch.ones(3, 2),), dynamic_shapes=({0: Dim.DYNAMIC},))
>>> [node.name for node in program.graph.nodes if node.name.startswith("loop")]
['loop_input', 'loop_state', 'loop_outputs', 'loop_last']
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn

import torch
from torch import Tensor

_library = torch.library.Library("quant", "FRAGMENT")


def _sliced(sequence: Tensor, *, reverse: bool) -> Tensor:
    return sequence.new_empty(sequence.shape[1:])


def _like_after(afters: Sequence[Tensor], states: Sequence[Tensor], *, number: int) -> Tensor:
    return torch.empty_like(afters[number])


def _like_initial(initial: Tensor, step: Tensor, *, number: int) -> Tensor:
    return torch.empty_like(initial)


def _joined(each: Tensor, step: Tensor, sequence: Tensor, afters: Sequence[Tensor], states: Sequence[Tensor]) -> Tensor:
    return each.new_empty((sequence.shape[0], *each.shape))


def _refuse(*operands: Any, **options: Any) -> NoReturn:
    raise RuntimeError("a step of a loop cannot be computed by itself; run the program with its run method")


_SHAPES: Final[Mapping[str, Callable[..., Tensor]]] = {
    "loop_input(Tensor sequence, *, bool reverse)": _sliced,
    "loop_state(Tensor initial, Tensor step, *, int number)": _like_initial,
    "loop_last(Tensor[] afters, Tensor[] states, *, int number)": _like_after,
    "loop_outputs(Tensor each, Tensor step, Tensor sequence, Tensor[] afters, Tensor[] states)": _joined,
}
for _schema, _shape in _SHAPES.items():
    _name = _schema.partition("(")[0]
    _library.define(f"{_schema} -> Tensor", tags=torch.Tag.pt2_compliant_tag)
    _library.impl(_name, _refuse, "CompositeExplicitAutograd")
    torch.library.register_fake(f"quant::{_name}", _shape, lib=_library)

LOOP_INPUT: Final = torch.ops.quant.loop_input.default
LOOP_STATE: Final = torch.ops.quant.loop_state.default
LOOP_LAST: Final = torch.ops.quant.loop_last.default
LOOP_OUTPUTS: Final = torch.ops.quant.loop_outputs.default
LOOP_OPS: Final = (LOOP_INPUT, LOOP_STATE, LOOP_LAST, LOOP_OUTPUTS)


def loop_input(sequence: Tensor, *, reverse: bool) -> Tensor:
    """The slice of ``(T, …)`` at the step that is being captured."""
    found: Tensor = LOOP_INPUT(sequence, reverse=reverse)
    return found


def loop_state(initial: Tensor, step: Tensor, number: int) -> Tensor:
    """The state before the step whose input is ``step``; ``number`` tells states apart that start from the same tensor."""
    found: Tensor = LOOP_STATE(initial, step, number=number)
    return found


def loop_last(afters: Sequence[Tensor], states: Sequence[Tensor], number: int) -> Tensor:
    """The last of the states with this number, where ``afters`` are what a step makes of all ``states``."""
    found: Tensor = LOOP_LAST(list(afters), list(states), number=number)
    return found


def loop_outputs(
    each: Tensor, step: Tensor, sequence: Tensor, afters: Sequence[Tensor], states: Sequence[Tensor]
) -> Tensor:
    """What each step gives, ``(T, …)``, where ``step`` is the slice of ``sequence`` and ``afters`` become of ``states``."""
    found: Tensor = LOOP_OUTPUTS(each, step, sequence, list(afters), list(states))
    return found
