"""Functions of quantized numbers as tables: value, slope, and the gradient of the scale behind the function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Final

import torch
from torch import Tensor

from quant_rnn.native.program import Kind, Lookup

FUNCTIONS: Final[dict[Kind, Callable[..., Tensor]]] = {
    Kind.SIGMOID: torch.sigmoid,
    Kind.TANH: torch.tanh,
    Kind.RELU: torch.relu,
}
"""The functions of a program."""

SLOPES: Final[dict[Kind, Callable[[Tensor], Tensor]]] = {
    Kind.SIGMOID: lambda y: (1 - y) * y,
    Kind.TANH: lambda y: 1 - y * y,
    Kind.RELU: lambda y: (y > 0).to(y.dtype),
}
"""The slope of a function, from its value."""


def tables_of(lookups: Sequence[Lookup], length: int, scales: Tensor, ranges: Tensor) -> Tensor:
    """One number for each level ``x`` of the quantizer in front of a function ``f``, ``(lookups, 3, length)``.

    The first row is the value ``Q(f(x))``; the second the slope ``f'(x)``, and 0 where ``Q`` clamps; the third the gradient of
    ``Q(f(x))`` with respect to the scale of ``Q``: the rounding error in steps, or the end of the range.

    Args:
        lookups: the functions.
        length: how many levels the quantizer in front has that has most; what stands behind the last level of others is not used.
        scales: of all calls of quantizers, ``(calls,)``.
        ranges: the smallest and the largest integer of each, ``(calls, 2)``.

    >>> ranges = torch.tensor([[-2.0, 1.0], [-2.0, 1.0]])
    >>> value, slope, _ = tables_of([Lookup(Kind.RELU, 0, 1)], 4, torch.tensor([0.7, 0.5]), ranges)[0]
    >>> value.tolist(), slope.tolist()
    ([0.0, 0.0, 0.0, 0.5], [0.0, 0.0, 0.0, 1.0])
    """
    found = scales.new_empty(len(lookups), 3, length)
    if not lookups:
        return found
    front, behind = scales.new_tensor([one[1:] for one in lookups], dtype=torch.int64).unbind(1)
    levels = (ranges[front, :1] + torch.arange(length, device=scales.device)) * scales[front, None]
    value, slope, error = found.unbind(1)
    exact, start = torch.empty_like(levels), 0
    for function, alike in groupby(one.function for one in lookups):
        rows = slice(start, start := start + sum(1 for _ in alike))
        exact[rows] = FUNCTIONS[Kind(function)](levels[rows])
        slope[rows] = SLOPES[Kind(function)](exact[rows])
    scale, (low, high) = scales[behind, None], ranges[behind, :, None].unbind(1)
    ratio = exact / scale
    rounded = ratio.round()
    clamped = rounded.clamp(low, high)
    inside = rounded == clamped
    torch.mul(clamped, scale, out=value)
    slope.mul_(inside)
    error.copy_(torch.where(inside, clamped - ratio, clamped))
    return found
