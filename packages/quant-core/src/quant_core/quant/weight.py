"""Named quantizers of weights."""

from __future__ import annotations

from typing import Any

from quant_core.components import (
    AbsMax,
    BitWidth,
    ConstBitWidth,
    Granularity,
    IntQuant,
    PerChannel,
    PerTensor,
    StatsFromParameterScaling,
    ZeroZeroPoint,
)
from quant_core.inject import Injector, value
from quant_core.ops import ClampGradient
from quant_core.proxies import WeightQuantProxyFromInjector


class Int8WeightPerTensorFloat(Injector):
    """Signed, narrow-range integers with one float scale ``max|w| / 127``, computed from the weight at each step.

    Options (``weight_`` in front when given to a layer): ``bit_width``, ``signed``, ``narrow_range``, ``rounding_mode``,
    ``scaling_per_output_channel``, ``scaling_min_val``, ``quant_delay_steps``, and any component by its name.

    >>> import torch, quant_core.quant as q
    >>> q.Int8WeightPerTensorFloat.bit_width
    8
    """

    proxy_class = WeightQuantProxyFromInjector
    tensor_quant: Any = IntQuant
    scaling_impl: Any = StatsFromParameterScaling
    scaling_stats_impl: Any = AbsMax
    bit_width_impl: Any = ConstBitWidth
    zero_point_impl: Any = ZeroZeroPoint
    bit_width = 8
    signed = True
    narrow_range = True
    rounding_mode = "ROUND"
    scaling_min_val = 1e-10
    scaling_per_output_channel = False
    quant_delay_steps = 0

    @value
    def granularity(scaling_per_output_channel: bool, module: Any) -> Granularity:
        """Per tensor, or per output channel of the layer."""
        first = module[0] if isinstance(module, tuple) else module
        return PerChannel(first.output_channel_dim) if scaling_per_output_channel else PerTensor()

    @value
    def clamp_gradient(bit_width_impl: BitWidth) -> ClampGradient:
        """A clamped weight gets the gradient, so that it can come back; a bit width that learns gets it in its place."""
        return "masked" if bit_width_impl.learns else "pass"


class Int8WeightPerChannelFloat(Int8WeightPerTensorFloat):
    """As :class:`Int8WeightPerTensorFloat`, with a scale for each output channel."""

    scaling_per_output_channel = True
