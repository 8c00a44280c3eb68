"""What every scaling is: the way from a statistic or a parameter to a threshold that a scale can be made of."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from quant_core.components.restriction import FloatRestriction, Restriction
from quant_core.components.stats.statistic import Grouping
from quant_core.errors import ConfigurationError
from quant_core.ops import clamp_min_ste
from quant_core.ops.integer_levels import compute_dtype


class Scaling(nn.Module):
    """Base of all scaling implementations; ``forward(x)`` gives the threshold.

    A threshold is positive: at least ``scaling_min_val`` (restricted like the threshold itself), and at least ``2⁻⁹⁴`` (1 for
    whole numbers), so that a tensor of zeros has a scale, and no NaN. The gradient passes below the minimum, so that a
    threshold can grow out of it.

    Thresholds, and so scales, have float32 where the tensor or the parameters have float16 or bfloat16, because a scale in half
    precision would move all levels; for float64 tensors they have float64.

    Attributes:
        learns: whether the threshold has a parameter, so that what is clamped tells it where to go.
        granularity: which elements share a threshold, where it is known; per group, the quantizer repeats each scale over its
            group.
        calibratable: whether the threshold comes from data that runs through the model, so that :meth:`take_threshold` can
            stand in for collecting it.

    Args:
        scaling_min_val: the smallest threshold.
        restrict_scaling_impl: which numbers the threshold may be; any positive ones if left out.

    Raises:
        ConfigurationError: when ``scaling_min_val`` is negative or not finite.
    """

    learns: bool = False
    granularity: Grouping | None = None
    calibratable: bool = False

    def __init__(self, scaling_min_val: float | None = None, restrict_scaling_impl: Restriction | None = None) -> None:
        super().__init__()
        self.restrict_scaling_impl = FloatRestriction() if restrict_scaling_impl is None else restrict_scaling_impl
        self.scaling_min_val = _checked_minimum(scaling_min_val)
        self.least = max(self.scaling_min_val or 0.0, self.restrict_scaling_impl.smallest)
        least = torch.tensor(self.least, dtype=torch.float64, device="cpu")
        self._least_restricted = float(self.restrict_scaling_impl.of_threshold(least))

    @property
    def reads_input(self) -> bool:
        """Whether the next forward looks at the values of ``x``, and not only at parameters."""
        return True

    @property
    def awaits_data(self) -> bool:
        """Whether the threshold is to come from data, and none has been seen."""
        return False

    @property
    def calibrated(self) -> bool:
        """Whether data has been seen, and no more is needed."""
        return not self.awaits_data

    def take_threshold(self, threshold: Tensor) -> None:
        """Take a threshold that was found otherwise, as if it had been collected.

        Args:
            threshold: positive, in the shape of the scale.
        """
        raise NotImplementedError(f"{type(self).__name__} takes no threshold from data")

    def of_statistic(self, statistic: Tensor) -> Tensor:
        """The restricted threshold for a statistic; its gradient passes, straight through rounding."""
        return self.restrict_scaling_impl.of_threshold(self.at_least(statistic))

    def of_parameter(self, parameter: Tensor) -> Tensor:
        """The restricted threshold for a parameter, in the domain of the restriction."""
        return self.restrict_scaling_impl.at_least(widened(parameter), self._least_restricted)

    def parameter_for(self, statistic: Tensor) -> Tensor:
        """The parameter that stands for the threshold of a statistic, before it is rounded."""
        return self.restrict_scaling_impl.parameter_for(self.at_least(statistic))

    def at_least(self, statistic: Tensor) -> Tensor:
        """The magnitude of a statistic, no smaller than the smallest threshold; not restricted."""
        return clamp_min_ste(widened(statistic).abs(), self.least)

    def forward(self, x: Tensor) -> Tensor:
        """The threshold for ``x``: positive, broadcastable to it, or one for each group where it is quantized per group."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(x)")

    def extra_repr(self) -> str:
        """The minimum."""
        return "" if self.scaling_min_val is None else f"scaling_min_val={self.scaling_min_val:g}"


def widened(x: Tensor) -> Tensor:
    """``x`` in float32 where it has half precision, else as it is.

    >>> widened(torch.ones(1, dtype=torch.bfloat16)).dtype
    torch.float32
    """
    wide = compute_dtype(x)
    return x if x.dtype == wide else x.to(wide)  # a conversion to the same dtype would stand in captured graphs


def _checked_minimum(scaling_min_val: float | None) -> float | None:
    if scaling_min_val is None:
        return None
    number = isinstance(scaling_min_val, int | float) and not isinstance(scaling_min_val, bool)
    if not number or not 0 <= scaling_min_val < math.inf:
        raise ConfigurationError(
            f"scaling_min_val={scaling_min_val!r} is out of range",
            why="it is the smallest threshold, a finite number that is not negative",
            fix="Use a number such as 1e-10, or None.",
        )
    return float(scaling_min_val)
