"""Named quantizers of activations."""

from __future__ import annotations

from typing import Any

from quant_core.components import (
    AbsPercentile,
    ConstBitWidth,
    Granularity,
    IntQuant,
    ParameterFromRuntimeStatsScaling,
    ZeroZeroPoint,
    granularity_of,
)
from quant_core.inject import Injector, this, value
from quant_core.proxies import ActQuantProxyFromInjector


class Int8ActPerTensorFloat(Injector):
    """Signed integers with a learned float scale that starts from the 99.999th percentile of the first 300 training steps.

    Options: ``bit_width``, ``signed``, ``narrow_range``, ``rounding_mode``, ``collect_stats_steps``,
    ``scaling_stats_momentum``, ``high_percentile_q``, ``scaling_min_val``, ``scaling_per_output_channel`` (together with
    ``per_channel_broadcastable_shape``), ``quant_delay_steps``, and any component by its name.

    >>> Int8ActPerTensorFloat.let(bit_width=4).bit_width
    4
    """

    proxy_class = ActQuantProxyFromInjector
    tensor_quant: Any = IntQuant
    scaling_impl: Any = ParameterFromRuntimeStatsScaling
    scaling_stats_impl: Any = AbsPercentile
    bit_width_impl: Any = ConstBitWidth
    zero_point_impl: Any = ZeroZeroPoint
    bit_width = 8
    signed = True
    narrow_range = False
    rounding_mode = "ROUND"
    clamp_gradient = "masked"
    collect_stats_steps = 300
    scaling_stats_momentum = 0.1
    high_percentile_q = 99.999
    scaling_min_val = 1e-10
    scaling_per_output_channel = False
    quant_delay_steps = 0

    @value
    def scaling_shape(scaling_per_output_channel: bool) -> Any:
        """``()`` per tensor; the given shape, for example ``(1, C, 1, 1)``, per channel."""
        return this.per_channel_broadcastable_shape if scaling_per_output_channel else ()

    @value
    def granularity(scaling_shape: tuple[int, ...]) -> Granularity:
        """What the shape of the scale says."""
        return granularity_of(scaling_shape)


class Uint8ActPerTensorFloat(Int8ActPerTensorFloat):
    """As :class:`Int8ActPerTensorFloat`, unsigned: for what follows a ReLU."""

    signed = False
