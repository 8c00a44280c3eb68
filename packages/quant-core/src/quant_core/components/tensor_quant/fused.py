"""The two commonest integer quantizers, of weights and of activations, whose steps the native kernels take together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from quant_core.components.granularity import PerChannel, PerTensor
from quant_core.components.restriction import FloatRestriction
from quant_core.components.scaling import (
    ParameterFromRuntimeStatsScaling,
    ParameterScaling,
    Scaling,
    StatsFromParameterScaling,
)
from quant_core.components.stats import AbsMax
from quant_core.ops.by_largest import quantize_by_largest
from quant_core.ops.by_percentile import quantize_by_percentile
from quant_core.ops.by_threshold import quantize_by_threshold
from quant_core.ops.threshold_grid import ThresholdGrid


@dataclass(frozen=True, kw_only=True)
class FusedQuant:
    """An integer quantizer around zero of constant range, with a scale that is not restricted.

    Attributes:
        parts: the components that it stands for, by their names in the quantizer.
        threshold_grid: what a threshold makes.
    """

    parts: Mapping[str, nn.Module]
    threshold_grid: ThresholdGrid

    @property
    def zero_point(self) -> Tensor:
        """The number 0, a 0-dim tensor."""
        return self.parts["zero_point_impl"]._buffers["zero_point"]  # type: ignore[return-value]  # it has one

    @property
    def bit_width(self) -> Tensor:
        """A 0-dim tensor."""
        return self.parts["bit_width_impl"]._buffers["bit_width"]  # type: ignore[return-value]  # it has one

    def still_stands_for(self, parts: Mapping[str, nn.Module | None]) -> bool:
        """Whether none of the components has been replaced since."""
        for name, part in self.parts.items():  # noqa: SIM110  # runs at each step, where a generator costs
            if parts[name] is not part:
                return False
        return True

    def __call__(self, x: Tensor, rectify: bool) -> tuple[Tensor, Tensor] | None:
        """``(value, scale)`` of ``x`` or ``max(x, 0)``, or ``None`` where the kernels do not apply."""
        raise NotImplementedError(f"{type(self).__name__} must define __call__(x, rectify)")


@dataclass(frozen=True, kw_only=True)
class LargestQuant(FusedQuant):
    """The threshold is ``max |x|`` per tensor or per first axis; the gradient passes the clamp."""

    scaling_impl: StatsFromParameterScaling
    per_channel: bool

    def __call__(self, x: Tensor, rectify: bool) -> tuple[Tensor, Tensor] | None:
        """``(value, scale)``.

        Raises:
            InputError: when ``x`` is not finite.
        """
        if rectify:
            return None
        found = quantize_by_largest(x, self.threshold_grid, per_channel=self.per_channel)
        if found is not None and (self.per_channel or not math.isfinite(found[1].item())):
            self.scaling_impl.check(found[1])
        return found


@dataclass(frozen=True, kw_only=True)
class LearnedQuant(FusedQuant):
    """The threshold is the magnitude of a parameter; the gradient stops at the clamp, from where it reaches the parameter."""

    scaling_impl: ParameterScaling | ParameterFromRuntimeStatsScaling

    def __call__(self, x: Tensor, rectify: bool) -> tuple[Tensor, Tensor] | None:
        """``(value, scale)``; while statistics are collected, that of a percentile is the threshold.

        Raises:
            InputError: when ``x`` holds infinities or NaN while they are.
        """
        scaling = self.scaling_impl
        parameter = scaling.parameter_now()
        if parameter is not None:
            return quantize_by_threshold(x, parameter, self.threshold_grid, rectify=rectify)
        if isinstance(scaling, ParameterScaling) or not (nth := scaling.nth_largest(x)):
            return None
        found = quantize_by_percentile(x, scaling.value, self.threshold_grid, nth=nth, rectify=rectify)
        if found is None:
            return None
        value, scale, threshold = found
        scaling.follow(threshold)
        return value, scale


def fused_quant(
    parts: Mapping[str, nn.Module],
    clamp_gradient: str,
    bounds: tuple[float, float],
    divisor: float,
    rounding_mode: str,
) -> LargestQuant | LearnedQuant | None:
    """The same as what a quantizer around zero of constant range computes, or ``None`` where that is something else."""
    scaling = parts["scaling_impl"]
    if not isinstance(scaling, Scaling) or type(scaling.restrict_scaling_impl) is not FloatRestriction:
        return None
    grid = ThresholdGrid(scaling.least, bounds, divisor, rounding_mode)
    given: dict[str, Any] = {"parts": parts, "threshold_grid": grid, "scaling_impl": scaling}
    if type(scaling) in (ParameterScaling, ParameterFromRuntimeStatsScaling):
        return LearnedQuant(**given) if clamp_gradient == "masked" else None
    if type(scaling) is not StatsFromParameterScaling or not scaling.is_plain or clamp_gradient != "pass":
        return None
    statistic = scaling.scaling_stats_impl
    if type(statistic) is not AbsMax or statistic.granularity not in (PerTensor(), PerChannel(0)):
        return None
    return LargestQuant(**given, per_channel=statistic.granularity == PerChannel(0))
