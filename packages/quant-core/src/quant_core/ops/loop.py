"""Ops around one step of a recurrent layer, which make it a loop over a time axis of varying length.

A captured program stays one flat graph. What lies between these ops is computed once for each step:

========================= ===========================================================================================
op                        meaning
========================= ===========================================================================================
``quant::loop_input``     the slice of a sequence ``(T, …)`` that belongs to this step; from the end with ``reverse``
``quant::loop_state``     the state before this step: ``initial`` before the first one
``quant::loop_last``      the state after the last step
``quant::loop_outputs``   what each step gave, joined in the order of time, ``(T, …)``
========================= ===========================================================================================

They belong together by their operands: a state names the input of its step, a result its state, and outputs the input and its
sequence. Only captured programs hold them, and :class:`quant_core.export.loops.LoopInterpreter` runs them.

>>> from torch.export import Dim, export
>>> class Sum(torch.nn.Module):
...     def forward(self, x):
...         now = loop_input(x, reverse=False)
...         before = loop_state(torch.zeros(2), now, 0)
...         after = before + now
...         return loop_outputs(after, now, x), loop_last(after, before)
>>> program = export(Sum(), (torch.ones(3, 2),), dynamic_shapes=({0: Dim.DYNAMIC},))
>>> [node.name for node in program.graph.nodes if node.name.startswith("loop")]
['loop_input', 'loop_state', 'loop_outputs', 'loop_last']
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

import torch
from torch import Tensor

_library = torch.library.Library("quant", "FRAGMENT")


def _sliced(sequence: Tensor, *, reverse: bool) -> Tensor:
    return sequence.new_empty(sequence.shape[1:])


def _like_after(after: Tensor, state: Tensor) -> Tensor:
    return torch.empty_like(after)


def _like_initial(initial: Tensor, step: Tensor, *, number: int) -> Tensor:
    return torch.empty_like(initial)


def _joined(after: Tensor, step: Tensor, sequence: Tensor) -> Tensor:
    return after.new_empty((sequence.shape[0], *after.shape))


def _refuse(*operands: Any, **options: Any) -> NoReturn:
    raise RuntimeError("a step of a loop cannot be computed by itself; run the program with its run method")


_SHAPES: Final[Mapping[str, Callable[..., Tensor]]] = {
    "loop_input(Tensor sequence, *, bool reverse)": _sliced,
    "loop_state(Tensor initial, Tensor step, *, int number)": _like_initial,
    "loop_last(Tensor after, Tensor state)": _like_after,
    "loop_outputs(Tensor after, Tensor step, Tensor sequence)": _joined,
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


def loop_last(after: Tensor, state: Tensor) -> Tensor:
    """The last state, where ``after`` is what a step makes of ``state``."""
    found: Tensor = LOOP_LAST(after, state)
    return found


def loop_outputs(after: Tensor, step: Tensor, sequence: Tensor) -> Tensor:
    """What each step gives, ``(T, …)``, where ``step`` is the slice of ``sequence``."""
    found: Tensor = LOOP_OUTPUTS(after, step, sequence)
    return found
