"""Statistics that try grids: what is best depends on how many bits there are, and for a zero-point on the scale."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from quant_core.components.bit_width import BitWidth
from quant_core.components.granularity import PerTensor
from quant_core.components.stats.statistic import Grouping, Statistic
from quant_core.errors import ConfigurationError
from quant_core.ops.integer import fake_quantize, integer_range
from quant_core.ops.rounding import check_rounding_mode, round_to_integer
from quant_core.ops.straight_through import clamp


class GridSearch(Statistic):
    """Base of the statistics that quantize the tensor to compare grids. The result carries no gradient.

    Args:
        bit_width_impl: where the bit width comes from.
        signed: whether the integers can be negative.
        narrow_range: leave out one level.
        rounding_mode: how to round.
        quantize_zero_point: whether the zero-point is rounded and clamped to an integer of the range.
        granularity: which elements share a scale.
    """

    def __init__(
        self,
        bit_width_impl: BitWidth,
        signed: bool,
        narrow_range: bool,
        rounding_mode: str,
        quantize_zero_point: bool,
        granularity: Grouping = PerTensor(),  # noqa: B008
    ) -> None:
        super().__init__(granularity)
        self.signed = signed
        self.narrow_range = narrow_range
        self.rounding_mode = check_rounding_mode(rounding_mode)
        self.quantize_zero_point = quantize_zero_point
        # The quantizer owns the bit width; as a module of this one it would stand in the state_dict twice.
        self._bit_width_impl = (bit_width_impl,)

    def quantized(self, rows: Tensor, scale: Tensor, lowest: Tensor | None) -> Tensor:
        """The rows on a grid.

        Args:
            rows: ``(R, n)``.
            scale: ``(R,)``, or one element for all.
            lowest: ``(R,)``, the real number that the lowest integer stands for, or ``None`` for the zero-point 0.
        """
        low, high = self.range()
        step = scale.unsqueeze(-1)
        return fake_quantize(rows, step, self.zero_point(step, lowest), low, high, self.rounding_mode)

    def zero_point(self, step: Tensor, lowest: Tensor | None) -> Tensor | float:
        """The zero-point of each row, ``(R, 1)``; the number 0 for a symmetric grid."""
        if lowest is None:
            return 0.0
        low, high = self.range()
        shift: Tensor = lowest.abs().unsqueeze(1) / step + low
        if not self.quantize_zero_point:
            return shift
        return clamp(round_to_integer(shift, self.rounding_mode), low, high)

    def range(self) -> tuple[Tensor | float, Tensor | float]:
        """The smallest and the largest integer."""
        return integer_range(self.bits(), signed=self.signed, narrow_range=self.narrow_range)

    def bits(self) -> Tensor | float:
        """The bit width: a number when it is constant."""
        (bit_width_impl,) = self._bit_width_impl
        return bit_width_impl().detach() if bit_width_impl.constant is None else bit_width_impl.constant


def best_between(start: Tensor, end: Tensor, count: int, error: Callable[[Tensor], Tensor]) -> Tensor:
    """Of evenly spaced candidates the one with the smallest error, for each row by itself; of equal ones the first.

    Args:
        start: the first candidates, ``(R,)``.
        end: the last candidates, ``(R,)``.
        count: how many there are.
        error: the errors of candidates, ``(R,)``.

    >>> best_between(torch.tensor([0.0]), torch.tensor([2.0]), 5, lambda c: (c - 1.2).abs())
    tensor([1.])
    """
    best, smallest = start, error(start)
    for share in torch.linspace(0, 1, count, dtype=start.dtype, device=start.device)[1:]:
        other = start + (end - start) * share
        found = error(other)
        better = found < smallest
        best, smallest = torch.where(better, other, best), torch.where(better, found, smallest)
    return best


def check_count(name: str, count: int) -> int:
    """Return the number of steps of a search when it is one.

    Raises:
        ConfigurationError: when it is not a whole number of at least 1.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ConfigurationError(
            f"{name}={count!r} is not a number of steps",
            why="the search takes a whole number of steps, at least 1",
            fix="Leave it out for the default.",
        )
    return count
