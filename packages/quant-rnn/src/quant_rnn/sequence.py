"""Going through a sequence step by step, also through several sequences of different lengths at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from quant_nn.layer import value_of
from quant_rnn.quantizing import MaybeQuantized

State = tuple[MaybeQuantized, ...]
Step = Callable[[Tensor, tuple[Tensor, ...]], State]
"""Takes the projected input ``(B, G·H)`` of one step and the state before it, and returns the state after it."""


def run(step: Step, inputs: Sequence[Tensor], state: State, *, reverse: bool) -> tuple[list[MaybeQuantized], State]:
    """The outputs of all steps in the order of time, and the last state.

    Args:
        step: one step; its output is the first part of the state.
        inputs: the projected input of each step, ``(B_t, G·H)``. Sequences are sorted by length, so that ``B_t`` never grows: a
            sequence that has ended takes no part in the steps after its end.
        state: the state before the first step, ``(B, …)`` each.
        reverse: start from the end of each sequence.
    """
    if any(x.shape[0] != inputs[0].shape[0] for x in inputs):
        return _run_uneven(step, inputs, state, reverse)
    outputs: list[MaybeQuantized] = []
    for x in reversed(inputs) if reverse else inputs:
        state = step(x, tuple(value_of(part) for part in state))
        outputs.append(state[0])
    return (outputs[::-1] if reverse else outputs), state


def _run_uneven(
    step: Step, inputs: Sequence[Tensor], state: State, reverse: bool
) -> tuple[list[MaybeQuantized], State]:
    start = tuple(value_of(part) for part in state)
    now = tuple(part[: (inputs[-1] if reverse else inputs[0]).shape[0]] for part in start)
    outputs: list[MaybeQuantized] = []
    ended: list[tuple[Tensor, ...]] = []
    for x in reversed(inputs) if reverse else inputs:
        before, size = now[0].shape[0], x.shape[0]
        if size < before:
            ended.append(tuple(part[size:] for part in now))
            now = tuple(part[:size] for part in now)
        elif size > before:
            now = tuple(torch.cat([part, first[before:size]]) for part, first in zip(now, start, strict=True))
        after = step(x, now)
        outputs.append(after[0])
        now = tuple(value_of(part) for part in after)
    last = tuple(torch.cat(parts) for parts in zip(now, *reversed(ended), strict=True))
    return (outputs[::-1] if reverse else outputs), last
