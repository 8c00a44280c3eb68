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
    PerGroup,
    PerTensor,
    StatsFromParameterScaling,
    ZeroZeroPoint,
)
from quant_core.components.granularity import is_per_channel
from quant_core.inject import Injector, value
from quant_core.ops import ClampGradient
from quant_core.proxies import WeightQuantProxyFromInjector
from quant_core.shorthand import computed


class Int8WeightPerTensorFloat(Injector):
    """Signed, narrow-range integers with one float scale ``max|w| / 127``, computed from the weight at each step.

    Options (``weight_`` in front when given to a layer): ``bit_width``, ``signed``, ``narrow_range``, ``rounding_mode``,
    ``scaling_per_output_channel``, ``group_size`` (a scale for each run of so many input channels), ``scaling_min_val``,
    ``quant_delay_steps``, and any component by its name.

    >>> import quant_nn as qnn
    >>> [qnn.QuantLinear(8, 2, weight_group_size=size).weight_quant.scale().unique().numel() for size in (None, 4)]
    [1, 4]
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
    output_channel_dim = computed.output_channel_dim
    group_size: int | None = None
    quant_delay_steps = 0

    @value
    def granularity(scaling_per_output_channel: bool, group_size: int | None, module: Any) -> Granularity:
        """Per tensor, per output channel of the layer, or per group of its input channels."""
        axis = computed.output_channel_dim.function(module)
        if group_size is not None:
            return PerGroup(group_size, 1 - axis)
        return PerChannel(axis) if is_per_channel(scaling_per_output_channel) else PerTensor()

    @value
    def clamp_gradient(bit_width_impl: BitWidth, scaling_impl: Any) -> ClampGradient:
        """A clamped weight gets the gradient, so that it can come back; what learns the range gets it in its place."""
        return "masked" if bit_width_impl.learns or getattr(scaling_impl, "learns", False) else "pass"


class Int8WeightPerChannelFloat(Int8WeightPerTensorFloat):
    """As :class:`Int8WeightPerTensorFloat`, with a scale for each output channel.

    >>> import torch, quant_nn as qnn
    >>> layer = qnn.QuantLinear(2, 2, bias=False, weight_quant=Int8WeightPerChannelFloat)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.5, -1.27], [2.54, 0.1]]))
    >>> layer.weight_quant.scale().detach()
    tensor([[0.0100],
            [0.0200]])
    """

    scaling_per_output_channel = True
