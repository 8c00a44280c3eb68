"""From one grid to another in integers, without a rounding error.

A value ``a · q + b`` in steps of the new grid, with the integer ``q`` and the real numbers ``a`` and ``b``, is rounded by

    (q · multiplier + offset) / divisor

in integers. Why it is exact: scales are floats, which are fractions, and so are ``a = s / s'`` and ``b``. With
``divisor = 4 · denominator of a`` the product ``q · multiplier`` is an integer, and every border between two levels (a whole or a
half multiple of the divisor) is an even one. ``offset = b · divisor`` is rounded down to an integer and, where that loses
something, made odd: a sum between two neighbouring even integers stays between them, so it stays on its side of every border, and
is on a border only where the real number is. Rounding looks at nothing else.

The values have at most 62 bits. Where they would not fit, the constructor refuses, and nothing is approximated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

LIMIT = 2**62
"""No integer of a computation is larger, so that sums of two stay within 64 bits."""


class TooWideError(Exception):
    """Integers of a computation do not fit; caught by the lowering, which says where."""


@dataclass(frozen=True, kw_only=True)
class Rescaling:
    """``(q · multiplier + offset) / divisor``, to be rounded.

    Attributes:
        multiplier: int64, one number or one for each channel.
        offset: the same.
        divisor: the same, positive.
    """

    multiplier: Tensor
    offset: Tensor
    divisor: Tensor

    def quotient(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """Of int64 ``q``, to which the numbers broadcast: the fraction rounded down, and the remainder."""
        total = q * self.multiplier + self.offset
        below = torch.div(total, self.divisor, rounding_mode="floor")
        return below, total - below * self.divisor

    def rounded(self, q: Tensor, mode: str) -> Tensor:
        """The fraction rounded to integers by one of :data:`~quant_core.ops.ROUNDING_MODES`.

        >>> half = rescaling([Fraction(1, 2)], [Fraction(0)], [(-9, 9)])
        >>> half.rounded(torch.tensor([-3, -1, 1, 3]), "ROUND").tolist()
        [-2, 0, 0, 2]
        """
        below, rest = self.quotient(q)
        twice = 2 * rest
        if mode == "FLOOR":
            return below
        if mode == "CEIL":
            return below + (rest > 0)
        if mode == "TO_ZERO":
            return below + ((below < 0) & (rest > 0))
        to_even = below + ((twice > self.divisor) | ((twice == self.divisor) & (below % 2 != 0)))
        half_up = below + (twice >= self.divisor)
        if mode == "DPU":
            return torch.where(below < 0, half_up, to_even)
        return {"ROUND": to_even, "HALF_UP": half_up}[mode]

    def sign(self, q: Tensor) -> Tensor:
        """``+1`` where the fraction is 0 or more, else ``−1``."""
        return torch.where(q * self.multiplier + self.offset >= 0, 1, -1)

    def ternary(self, q: Tensor) -> Tensor:
        """``+1`` where the fraction is above 1, ``−1`` where it is below −1, else 0."""
        total = q * self.multiplier + self.offset
        return (total > self.divisor).to(torch.int64) - (total < -self.divisor).to(torch.int64)


def rescaling(factors: Sequence[Fraction], offsets: Sequence[Fraction], ranges: Sequence[tuple[int, int]]) -> Rescaling:
    """The integers for ``a · q + b``, one ``(a, b)`` or one for each channel.

    Args:
        factors: each ``a``.
        offsets: each ``b``.
        ranges: the smallest and the largest ``q``; where they are equal, the value is a constant and ``a`` does not matter.

    Raises:
        TooWideError: when more than 62 bits are needed.

    >>> found = rescaling([Fraction(3, 8)], [Fraction(1, 3)], [(0, 100)])
    >>> found.multiplier, found.offset, found.divisor
    (tensor(12), tensor(11), tensor(32))
    """
    count = max(len(factors), len(offsets), len(ranges))
    rows = [_integers(_of(factors, i), _of(offsets, i), _of(ranges, i)) for i in range(count)]
    columns = [torch.tensor(column, dtype=torch.int64) for column in zip(*rows, strict=True)]
    multiplier, offset, divisor = (column.reshape(()) if count == 1 else column for column in columns)
    return Rescaling(multiplier=multiplier, offset=offset, divisor=divisor)


def _integers(factor: Fraction, offset: Fraction, bounds: tuple[int, int]) -> tuple[int, int, int]:
    low, high = bounds
    if low == high:
        factor, offset = Fraction(0), factor * low + offset
    divisor = 4 * factor.denominator
    multiplier, shift = int(factor * divisor), _sticky(offset * divisor)
    if max(abs(low), abs(high)) * abs(multiplier) + abs(shift) >= LIMIT or divisor >= LIMIT // 2:
        raise TooWideError
    return multiplier, shift, divisor


def _sticky(value: Fraction) -> int:
    """Rounded down, and odd where that is not exact."""
    below = math.floor(value)
    return below if below == value else below | 1


def round_fraction(value: Fraction, mode: str) -> int:
    """One number rounded as :meth:`Rescaling.rounded` rounds tensors.

    >>> round_fraction(Fraction(5, 2), "ROUND"), round_fraction(Fraction(5, 2), "HALF_UP")
    (2, 3)
    """
    constant = rescaling([Fraction(0)], [value], [(0, 0)])
    return int(constant.rounded(torch.zeros((), dtype=torch.int64), mode))


def _of(values: Sequence[Any], index: int) -> Any:
    return values[index] if len(values) > 1 else values[0]
