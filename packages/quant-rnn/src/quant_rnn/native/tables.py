"""Functions of quantized numbers as tables: value, slope, and the gradient of the scale behind the function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import torch
from torch import Tensor

from quant_rnn.native.program import Kind

FUNCTIONS: Final[dict[Kind, Callable[..., Tensor]]] = {
    Kind.SIGMOID: torch.sigmoid,
    Kind.TANH: torch.tanh,
    Kind.RELU: torch.relu,
}
"""The functions of a program."""


class Tables(NamedTuple):
    """One number for each level of the quantizer in front of a function ``f``.

    Attributes:
        value: ``Q(f(x))``.
        slope: ``f'(x)``, and 0 where the quantizer behind the function clamps.
        error: the gradient of ``Q(f(x))`` with respect to its scale: the rounding error in steps, or the end of the range.
    """

    value: Tensor
    slope: Tensor
    error: Tensor


SLOPES: dict[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]] = {
    torch.sigmoid: lambda y: (1 - y) * y,
    torch.tanh: lambda y: 1 - y * y,
    torch.relu: lambda y: (y > 0).to(y.dtype),
}
"""The slope of a function, from its value."""


def table_of(function: Callable[[Tensor], Tensor], levels: Tensor, scale: Tensor, low: float, high: float) -> Tables:
    """The tables of ``Q(function(levels))``.

    >>> tables = table_of(torch.relu, torch.tensor([-1.0, 0.26, 9.0]), torch.tensor(0.5), -2.0, 1.0)
    >>> tables.value.tolist(), tables.slope.tolist()
    ([0.0, 0.5, 0.5], [0.0, 1.0, 0.0])
    """
    exact = function(levels)
    slope = SLOPES[function](exact)
    ratio = exact / scale
    rounded = ratio.round()
    clamped = rounded.clamp(low, high)
    inside = rounded == clamped
    return Tables(clamped * scale, slope * inside, torch.where(inside, clamped - ratio, clamped))


def levels_of(scale: Tensor, low: float, high: float) -> Tensor:
    """All numbers that a quantizer gives, from the smallest: ``(high − low + 1,)``.

    >>> levels_of(torch.tensor(0.5), -2.0, 1.0).tolist()
    [-1.0, -0.5, 0.0, 0.5]
    """
    return torch.arange(low, high + 1, dtype=scale.dtype) * scale
