"""The integers that a threshold is to be spread over, which some ways to choose it depend on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from quant_core.components import IntQuant, Scaling
from quant_core.ops import integer_range


@dataclass(frozen=True, kw_only=True)
class Levels:
    """A grid without its scale.

    Attributes:
        low: the smallest integer.
        high: the largest.
        divisor: ``scale = threshold / divisor``.
        restrict: the thresholds that there are, where not all are: the one that stands for another, such as the next power of
            two; ``None`` where any may be.

    >>> Levels.of_bits(8, signed=True)
    Levels(low=-128.0, high=127.0, divisor=127.0, restrict=None)
    """

    low: float
    high: float
    divisor: float
    restrict: Callable[[Tensor], Tensor] | None = None

    @property
    def positive(self) -> int:
        """How many levels magnitudes have, with that of 0: 128 for signed integers of 8 bits."""
        return int(self.high) + 1

    @classmethod
    def of_bits(cls, bits: int, *, signed: bool, narrow_range: bool = False) -> Levels:
        """Those of integers of so many bits, the largest of which stands for the threshold."""
        low, high = integer_range(bits, signed=signed, narrow_range=narrow_range)
        return cls(low=low, high=high, divisor=high)

    @classmethod
    def of_quant(cls, quant: object) -> Levels | None:
        """Those of a quantizer of integers with the zero-point 0; ``None`` for every other."""
        if not isinstance(quant, IntQuant) or not quant.symmetric:
            return None
        bits = float(quant.bit_width_impl().detach())
        low, high = integer_range(bits, signed=quant.signed, narrow_range=quant.narrow_range)
        scaling = quant.scaling_impl
        return cls(
            low=low,
            high=high,
            divisor=float(quant.int_scaling_impl(bits)),
            restrict=_restriction(scaling) if isinstance(scaling, Scaling) else None,
        )


def _restriction(scaling: Scaling) -> Callable[[Tensor], Tensor] | None:
    return scaling.of_statistic if scaling.restrict_scaling_impl.power_of_two else None
