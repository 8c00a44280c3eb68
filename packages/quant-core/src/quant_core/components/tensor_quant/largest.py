"""Whether a quantizer is the commonest one of weights, whose steps the native kernels take together."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from quant_core.components.granularity import PerChannel, PerTensor
from quant_core.components.restriction import FloatRestriction
from quant_core.components.scaling import StatsFromParameterScaling
from quant_core.components.stats import AbsMax
from quant_core.ops.by_largest import quantize_by_largest


@dataclass(frozen=True, kw_only=True)
class LargestQuant:
    """``max |x|`` per tensor or per first axis, not restricted, over a constant range; the gradient passes the clamp."""

    scaling_impl: StatsFromParameterScaling
    per_channel: bool
    minimum: float
    low: float
    high: float
    divisor: float
    rounding_mode: str

    @classmethod
    def of(
        cls, scaling_impl: nn.Module, bounds: tuple[float, float], divisor: float, rounding_mode: str
    ) -> LargestQuant | None:
        """The same as what a quantizer of that scaling computes, or ``None`` where that is something else."""
        if type(scaling_impl) is not StatsFromParameterScaling or not scaling_impl.is_plain:
            return None
        statistic = scaling_impl.scaling_stats_impl
        if type(statistic) is not AbsMax or type(scaling_impl.restrict_scaling_impl) is not FloatRestriction:
            return None
        if statistic.granularity not in (PerTensor(), PerChannel(0)):
            return None
        return cls(
            scaling_impl=scaling_impl,
            per_channel=statistic.granularity == PerChannel(0),
            minimum=scaling_impl.least,
            low=bounds[0],
            high=bounds[1],
            divisor=divisor,
            rounding_mode=rounding_mode,
        )

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """``(value, scale)``, or ``None`` where the kernels do not apply.

        Raises:
            InputError: when ``x`` is not finite.
        """
        found = quantize_by_largest(
            x,
            per_channel=self.per_channel,
            minimum=self.minimum,
            low=self.low,
            high=self.high,
            divisor=self.divisor,
            rounding_mode=self.rounding_mode,
        )
        if found is not None:
            self.scaling_impl.check(found[1])
        return found
