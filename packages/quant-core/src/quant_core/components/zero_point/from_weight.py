"""Zero-points from a statistic of the weight."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from quant_core.components.bit_width import BitWidth
from quant_core.components.int_scaling import int_scaling_for
from quant_core.components.stats.statistic import Statistic, check_finite
from quant_core.components.stats.weights import joined_rows
from quant_core.components.zero_point.shifted import ShiftedZeroPoint
from quant_core.ops import ClampGradient


class StatsFromParameterZeroPoint(ShiftedZeroPoint):
    """The lowest integer stands for a statistic of the weight, computed at each step; its gradient flows into the weight.

    Formula and gradient are those of :class:`~quant_core.components.ShiftedZeroPoint`, with ``v`` the statistic.

    Args:
        zero_point_stats_impl: the statistic, for example :class:`~quant_core.components.NegativeMinOrZero`.
        module: the layer whose weight it is, or a tuple of layers that share the quantizer: the statistic is then one over
            all of their weights together.
        signed: whether the integers can be negative.
        narrow_range: leave out one level.
        quantize_zero_point: whether to round and clamp.
        rounding_mode: how to round.
        clamp_gradient: the gradient of clamping.

    Raises:
        ConfigurationError: when the weights of several layers cannot be joined.

    >>> from quant_core.components import NegativeMinOrZero
    >>> zero_point = StatsFromParameterZeroPoint(NegativeMinOrZero(), nn.Linear(2, 1), signed=False)
    >>> zero_point(torch.tensor([-1.0, 3.0]), torch.tensor(0.125), torch.tensor(8.0))
    tensor(8.)
    """

    def __init__(
        self,
        zero_point_stats_impl: Statistic,
        module: nn.Module | tuple[nn.Module, ...],
        signed: bool,
        narrow_range: bool = False,
        quantize_zero_point: bool = True,
        rounding_mode: str = "ROUND",
        clamp_gradient: ClampGradient = "masked",
    ) -> None:
        super().__init__(signed, narrow_range, quantize_zero_point, rounding_mode, clamp_gradient)
        self.zero_point_stats_impl = zero_point_stats_impl
        self._sharing = module if isinstance(module, tuple) and len(module) > 1 else ()

    def forward(self, x: Tensor, scale: Tensor, bit_width: Tensor) -> Tensor:
        """The zero-point from the statistic of ``x``, or of all weights that share this quantizer."""
        if self._sharing:
            lowest = _of_all(self.zero_point_stats_impl, self._sharing, scale)
        else:
            lowest = self.zero_point_stats_impl.on_grid(x, scale)
        return self.from_lowest(lowest, scale, bit_width)


class ParameterFromStatsFromParameterZeroPoint(ShiftedZeroPoint):
    """A learned zero-point that starts from a statistic of the weight.

    Formula and gradient are those of :class:`~quant_core.components.ShiftedZeroPoint`, with ``v`` a parameter.

    Args:
        zero_point_stats_impl: the statistic, for example :class:`~quant_core.components.NegativeMinOrZero`.
        module: the layer whose weight it is, or a tuple of layers that share the quantizer.
        scaling_impl: where the threshold comes from, for a statistic that depends on the scale.
        bit_width_impl: where the bit width comes from, for a statistic that depends on it.
        signed: whether the integers can be negative.
        narrow_range: leave out one level.
        quantize_zero_point: whether to round and clamp.
        rounding_mode: how to round.
        clamp_gradient: the gradient of clamping.
        int_scaling_impl: what the threshold is divided by; as for :class:`~quant_core.components.IntQuant`.

    Raises:
        ConfigurationError: when the weights of several layers cannot be joined.
        InputError: when the weight holds infinities or NaN.

    >>> from quant_core.components import AbsMinMax, ConstBitWidth, NegativeMinOrZero, StatsFromParameterScaling
    >>> layer = nn.Linear(2, 1)
    >>> nn.init.constant_(layer.weight, -0.5).requires_grad
    True
    >>> scaling = StatsFromParameterScaling(AbsMinMax(), layer)
    >>> args = (NegativeMinOrZero(), layer, scaling, ConstBitWidth(8))
    >>> ParameterFromStatsFromParameterZeroPoint(*args, signed=False).value.item()
    -0.5
    """

    def __init__(
        self,
        zero_point_stats_impl: Statistic,
        module: nn.Module | tuple[nn.Module, ...],
        scaling_impl: nn.Module,
        bit_width_impl: BitWidth,
        signed: bool,
        narrow_range: bool = False,
        quantize_zero_point: bool = True,
        rounding_mode: str = "ROUND",
        clamp_gradient: ClampGradient = "masked",
        int_scaling_impl: nn.Module | None = None,
    ) -> None:
        super().__init__(signed, narrow_range, quantize_zero_point, rounding_mode, clamp_gradient)
        layers: tuple[Any, ...] = module if isinstance(module, tuple) else (module,)
        with torch.no_grad():
            restriction = getattr(scaling_impl, "restrict_scaling_impl", None)
            int_scaling = int_scaling_for(int_scaling_impl, restriction, signed, narrow_range)
            scale = scaling_impl(layers[0].weight) / int_scaling(bit_width_impl())
            lowest = _of_all(zero_point_stats_impl, layers, scale)
        check_finite(lowest, layers)
        self.value = nn.Parameter(lowest.clone())

    @property
    def reads_input(self) -> bool:
        """Never."""
        return False

    def forward(self, x: Tensor, scale: Tensor, bit_width: Tensor) -> Tensor:
        """The learned zero-point."""
        return self.from_lowest(self.value, scale, bit_width)


def _of_all(statistic: Statistic, layers: tuple[nn.Module, ...], scale: Tensor) -> Tensor:
    rows, shape = joined_rows(statistic.granularity, layers)
    return statistic.of_rows_on_grid(rows, scale.reshape(-1)).reshape(shape)
