"""Going through a sequence step by step, also through several sequences of different lengths at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

import torch
from torch import Tensor

from quant_nn.layer import value_of
from quant_rnn.quantizing import MaybeQuantized, concatenate, joined_steps

State = tuple[MaybeQuantized, ...]
Step = Callable[[Tensor, tuple[Tensor, ...]], State]
"""Takes the projected input ``(B, G·H)`` of one step and the state before it, and returns the state after it."""


Run = Callable[[Tensor, State], tuple[MaybeQuantized, State]]
"""Takes the projected input ``(T, B, G·H)`` of several steps and the state before them; returns outputs and the last state."""


def run(step: Step, inputs: Sequence[Tensor], state: State, *, reverse: bool) -> tuple[list[MaybeQuantized], State]:
    """The outputs of all steps in the order of time, and the last state.

    Args:
        step: one step; its output is the first part of the state.
        inputs: the projected input of each step, ``(B, G·H)``.
        state: the state before the first step, ``(B, …)`` each.
        reverse: start from the end.
    """
    outputs: list[MaybeQuantized] = []
    for x in reversed(inputs) if reverse else inputs:
        state = step(x, tuple(value_of(part) for part in state))
        outputs.append(state[0])
    return (outputs[::-1] if reverse else outputs), state


def run_uneven(
    run_even: Run, projected: Tensor, sizes: Sequence[int], state: State, *, reverse: bool
) -> tuple[MaybeQuantized, State]:
    """The joined outputs of sequences of several lengths, ``(N, …)``, and the last state of each.

    Args:
        run_even: steps in which the same sequences take part.
        projected: the projected inputs of all steps, joined, ``(N, G·H)``.
        sizes: how many sequences take part in each step. They are sorted by length, so that it never grows: a sequence that has
            ended takes no part in the steps after its end.
        state: the state before the first step, ``(B, …)`` each.
        reverse: start from the end of each sequence.
    """
    start = tuple(value_of(part) for part in state)
    runs = [(size, len(list(steps))) for size, steps in groupby(sizes)]
    parts = projected.split([size * length for size, length in runs])
    now = tuple(part[: runs[-1 if reverse else 0][0]] for part in start)
    outputs: list[MaybeQuantized] = []
    ended: list[tuple[Tensor, ...]] = []
    pairs = list(zip(runs, parts, strict=True))
    for (size, length), x in reversed(pairs) if reverse else pairs:
        before = now[0].shape[0]
        if size < before:
            ended.append(tuple(part[size:] for part in now))
            now = tuple(part[:size] for part in now)
        elif size > before:
            now = tuple(torch.cat([part, first[before:size]]) for part, first in zip(now, start, strict=True))
        out, after = run_even(x.view(length, size, -1), now)
        outputs.append(joined_steps(out))
        now = tuple(value_of(part) for part in after)
    last = tuple(torch.cat(parts) for parts in zip(now, *reversed(ended), strict=True))
    return concatenate(outputs[::-1] if reverse else outputs, 0), last
