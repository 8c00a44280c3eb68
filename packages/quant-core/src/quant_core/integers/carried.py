"""What is known of a value that a program computes in integers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import torch
from torch import Tensor

from quant_core.integers.rescaling import LIMIT, TooWideError

ZERO: Final = (Fraction(0),)


@dataclass(frozen=True, kw_only=True)
class Carried:
    """``clamp((q − zero_point) · scale + offset, *between)`` with integers ``q``.

    What varies from channel to channel has one element for each, everything else has one.

    Attributes:
        source: the name of the integers: of a value, or of an array of the file.
        is_array: whether they are an array of the file.
        scale: exact.
        low: the smallest integer.
        high: the largest one.
        zero_point: the integer that stands for 0.
        offset: what a bias on another grid adds, in units.
        axis: the axis of the channels, counted from the end; ``None`` where nothing varies.
        between: bounds in units that the value is yet to be clamped to; the next quantizer does it with its own.
    """

    source: str
    is_array: bool = False
    scale: tuple[Fraction, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]
    zero_point: tuple[int, ...] = (0,)
    offset: tuple[Fraction, ...] = ZERO
    axis: int | None = None
    between: tuple[Fraction | None, Fraction | None] = (None, None)

    def __post_init__(self) -> None:
        if max(map(abs, (*self.low, *self.high))) >= LIMIT:
            raise TooWideError

    @property
    def is_plain(self) -> bool:
        """Whether it is nothing but ``(q − zero_point) · scale`` with one scale and one zero-point."""
        return len(self.scale) == len(self.zero_point) == 1 and self.has_no_rest

    @property
    def has_no_rest(self) -> bool:
        """Whether nothing is added to it, and it is not to be clamped."""
        return not any(self.offset) and self.between == (None, None)

    @property
    def least(self) -> int:
        """The smallest integer of all channels."""
        return min(self.low)

    @property
    def most(self) -> int:
        """The largest one."""
        return max(self.high)

    @property
    def from_zero(self) -> tuple[int, int]:
        """The range of ``q − zero_point``, and 0 with it, which padding brings in."""
        return min(0, self.least - max(self.zero_point)), max(0, self.most - min(self.zero_point))

    def on_the_grid_of(self, other: Carried) -> bool:
        """Whether both are plain, and have one scale and one zero-point."""
        same = self.scale == other.scale and self.zero_point == other.zero_point
        return self.is_plain and other.is_plain and same


def fractions(tensor: Tensor) -> tuple[Fraction, ...]:
    """The floats of a tensor, exactly.

    >>> fractions(torch.tensor([0.5, 0.75]))
    (Fraction(1, 2), Fraction(3, 4))
    """
    return tuple(Fraction(value) for value in tensor.detach().to(torch.float64).flatten().tolist())


def whole_numbers(tensor: Tensor) -> tuple[int, ...]:
    """The integers of a tensor of any dtype."""
    return tuple(int(value) for value in tensor.detach().to(torch.float64).flatten().tolist())


def float32_of(exact: Fraction) -> Fraction:
    """The nearest number of float32, in which models compute their scales.

    >>> float32_of(Fraction(1, 3)) == Fraction(torch.tensor(1 / 3).item())
    True
    """
    rounded = Fraction(torch.tensor(float(exact), dtype=torch.float64).to(torch.float32).item())
    return rounded if rounded else exact


def along(numbers: Sequence[Any], axis: int | None, dtype: torch.dtype) -> Tensor:
    """One number, or one for each channel, as a tensor that broadcasts to the value.

    >>> along([1, 2], -3, torch.int64).shape
    torch.Size([2, 1, 1])
    """
    tensor = torch.tensor(list(numbers), dtype=dtype)
    return tensor.reshape(()) if len(numbers) == 1 else tensor.reshape((-1,) + (1,) * (-(axis or -1) - 1))


def common_unit(scales: Sequence[Fraction]) -> Fraction:
    """The largest number of which all scales are whole multiples.

    >>> common_unit([Fraction(3, 8), Fraction(1, 2)])
    Fraction(1, 8)
    """
    below = math.lcm(*(scale.denominator for scale in scales))
    return Fraction(math.gcd(*(int(scale * below) for scale in scales)), below)


def number(argument: Any) -> Fraction | None:
    """A finite Python number, exactly; ``None`` for anything else."""
    is_number = isinstance(argument, int | float) and not isinstance(argument, bool) and math.isfinite(argument)
    return Fraction(argument) if is_number else None
