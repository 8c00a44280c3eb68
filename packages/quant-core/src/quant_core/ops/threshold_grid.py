"""The grid of integers around zero whose scale comes from a threshold."""

from __future__ import annotations

from typing import NamedTuple


class ThresholdGrid(NamedTuple):
    """``scale = max(threshold, minimum) / divisor``, and the integers on it.

    Attributes:
        minimum: the smallest threshold; the gradient passes below it.
        bounds: the smallest and the largest integer.
        divisor: the integer that the threshold stands for.
        rounding_mode: one of :data:`~quant_core.ops.rounding.ROUNDING_MODES`.
    """

    minimum: float
    bounds: tuple[float, float]
    divisor: float
    rounding_mode: str
