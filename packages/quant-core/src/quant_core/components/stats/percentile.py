"""Percentiles: the ends of a distribution without its outliers. Exact, without sorting the tensor."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from quant_core.components.granularity import PerTensor
from quant_core.components.stats.kth_value import Order, Rounding, percentile_of_all_ranks, percentile_of_rows, rank
from quant_core.components.stats.statistic import Grouping, Statistic
from quant_core.errors import ConfigurationError


class AbsPercentile(Statistic):
    """The ``k``-th smallest of ``|x|``, with ``k = ⌊q/100 · n + ½⌋`` of ``n`` elements (at least 1).

    Gradient: ``sign(x)`` at the element found.

    Args:
        high_percentile_q: the percentile ``q``, above 0 and at most 100.
        granularity: which elements share a scale.

    Raises:
        ConfigurationError: when ``q`` is out of range.

    >>> import torch
    >>> AbsPercentile(50.0)(torch.tensor([1.0, -2.0, 3.0, -4.0]))
    tensor(2.)
    """

    def __init__(self, high_percentile_q: float = 99.999, granularity: Grouping = PerTensor()) -> None:  # noqa: B008
        super().__init__(granularity)
        self.high_percentile_q = _checked_high(high_percentile_q, "AbsMax for the largest value")

    def of_rows(self, rows: Tensor) -> Tensor:
        """The percentile of the absolute values of each row."""
        return percentile_of_rows(rows, self.high_percentile_q, "magnitude", "nearest").abs()

    def of_rows_of_all_ranks(self, rows: Tensor) -> Tensor:
        """Only the elements of each process that may be the one go around."""
        return percentile_of_all_ranks(rows, self.high_percentile_q, "magnitude", "nearest").abs()

    def nth_largest(self, size: int) -> int:
        """Which of ``size`` elements it is, counted from the largest, from 1.

        >>> AbsPercentile(99.0).nth_largest(1000)
        11
        """
        return size - rank(size, self.high_percentile_q, "nearest") + 1

    def extra_repr(self) -> str:
        """The percentile."""
        return f"q={self.high_percentile_q:g}"


class NegativePercentileOrZero(Statistic):
    """``min(p, 0)``, where ``p`` is the ``k``-th smallest of ``x``, with ``k = ⌈q/100 · n⌉`` of ``n`` elements (at least 1).

    Gradient: 1 at the element found if it is negative.

    Args:
        low_percentile_q: the percentile ``q``, at least 0 and below 100.
        granularity: which elements share a zero-point.

    Raises:
        ConfigurationError: when ``q`` is out of range.

    >>> import torch
    >>> NegativePercentileOrZero(50.0)(torch.tensor([1.0, -2.0, 3.0, -4.0]))
    tensor(-2.)
    """

    def __init__(self, low_percentile_q: float = 0.001, granularity: Grouping = PerTensor()) -> None:  # noqa: B008
        super().__init__(granularity)
        self.low_percentile_q = _checked_low(low_percentile_q)

    def of_rows(self, rows: Tensor) -> Tensor:
        """The percentile of each row, at most 0."""
        return percentile_of_rows(rows, self.low_percentile_q, "value", "up").clamp(max=0)

    def of_rows_of_all_ranks(self, rows: Tensor) -> Tensor:
        """Only the elements of each process that may be the one go around."""
        return percentile_of_all_ranks(rows, self.low_percentile_q, "value", "up").clamp(max=0)

    def extra_repr(self) -> str:
        """The percentile."""
        return f"q={self.low_percentile_q:g}"


class PercentileInterval(Statistic):
    """``max(h, 0) − min(l, 0)``: the length of the interval from a low to a high percentile that holds the number 0.

    ``l`` is the ``⌈q_l/100 · n⌉``-th smallest of ``x``, ``h`` the ``⌊q_h/100 · n + ½⌋``-th (each at least the first). Why it
    holds 0 is said at :class:`~quant_core.components.stats.AbsMinMax`.

    Gradient: 1 at the element ``h`` if it is positive, −1 at the element ``l`` if it is negative.

    Args:
        low_percentile_q: the percentile ``q_l``, at least 0 and below ``q_h``.
        high_percentile_q: the percentile ``q_h``, at most 100.
        granularity: which elements share a scale.

    Raises:
        ConfigurationError: when a percentile is out of range, or they are not in order.

    >>> import torch
    >>> PercentileInterval(25.0, 75.0)(torch.tensor([-9.0, -1.0, 2.0, 30.0]))
    tensor(11.)
    """

    def __init__(
        self,
        low_percentile_q: float = 0.001,
        high_percentile_q: float = 99.999,
        granularity: Grouping = PerTensor(),  # noqa: B008
    ) -> None:
        super().__init__(granularity)
        self.low_percentile_q = _checked_low(low_percentile_q)
        self.high_percentile_q = _checked_high(high_percentile_q, "AbsMinMax for the whole range")
        if low_percentile_q >= high_percentile_q:
            raise ConfigurationError(
                f"low_percentile_q={low_percentile_q!r} is not below high_percentile_q={high_percentile_q!r}",
                why="the interval goes from the low to the high percentile",
                fix="Use numbers such as 0.001 and 99.999.",
            )

    def of_rows(self, rows: Tensor) -> Tensor:
        """The length of the interval of each row."""
        return self._length(rows, percentile_of_rows)

    def of_rows_of_all_ranks(self, rows: Tensor) -> Tensor:
        """Only the elements of each process that may be one of the two go around."""
        return self._length(rows, percentile_of_all_ranks)

    def _length(self, rows: Tensor, percentile: Callable[[Tensor, float, Order, Rounding], Tensor]) -> Tensor:
        low = percentile(rows, self.low_percentile_q, "value", "up")
        high = percentile(rows, self.high_percentile_q, "value", "nearest")
        return high.clamp(min=0) - low.clamp(max=0)

    def extra_repr(self) -> str:
        """The percentiles."""
        return f"q={self.low_percentile_q:g}, {self.high_percentile_q:g}"


def _checked_high(q: float, alternative: str) -> float:
    if not _is_number(q) or not 0 < q <= 100:
        raise ConfigurationError(
            f"high_percentile_q={q!r} is not a percentile",
            why="a percentile lies above 0 and at most at 100",
            fix=f"Use 99.999 to leave out outliers, or {alternative}.",
        )
    return q


def _checked_low(q: float) -> float:
    if not _is_number(q) or not 0 <= q < 100:
        raise ConfigurationError(
            f"low_percentile_q={q!r} is not a percentile",
            why="a low percentile lies at 0 or above, and below 100",
            fix="Use 0.001 to leave out outliers, or NegativeMinOrZero for the smallest value.",
        )
    return q


def _is_number(q: object) -> bool:
    return isinstance(q, int | float) and not isinstance(q, bool)
