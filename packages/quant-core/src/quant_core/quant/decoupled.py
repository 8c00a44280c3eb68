"""Named quantizers of weights with one scale to divide by and another, learned one to multiply with."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from quant_core.components import (
    AbsMax,
    AbsMaxL2,
    BitWidth,
    ConstBitWidth,
    DecoupledIntQuant,
    ParameterScaling,
    PerChannel,
    PowerOfTwoRestriction,
    StatsFromParameterScaling,
)
from quant_core.components.weight_statistic import statistic_of_weights
from quant_core.inject import Injector, value
from quant_core.ops import ClampGradient
from quant_core.proxies import WeightQuantProxyFromInjector
from quant_core.shorthand import computed


class Int4WeightPerTensorFloatDecoupled(Injector):
    """Signed, narrow-range integers of 4 bits. Both scales start from the quadratic mean of each channel's largest weight.

    The first, by which the weight is divided, is computed from it at each step; the second, by which the integers are multiplied,
    is learned.

    Options (``weight_`` in front when given to a layer): ``bit_width``, ``signed``, ``narrow_range``, ``rounding_mode``,
    ``scaling_min_val``, ``quant_delay_steps``, and any component by its name.

    >>> import torch, quant_nn as qnn
    >>> layer = qnn.QuantLinear(2, 2, bias=False, weight_quant=Int4WeightPerTensorFloatDecoupled)
    >>> _ = layer.load_state_dict({"weight": torch.tensor([[1.0, -0.5], [7.0, 0.2]])})
    >>> layer.quant_weight().int(), layer.weight_quant.scale()
    (tensor([[ 1, -1],
            [ 7,  0]], dtype=torch.int8), tensor(0.7143, grad_fn=<DivBackward0>))
    """

    proxy_class = WeightQuantProxyFromInjector
    tensor_quant = DecoupledIntQuant
    pre_scaling_impl = StatsFromParameterScaling
    scaling_impl = ParameterScaling
    scaling_stats_impl = AbsMaxL2
    bit_width_impl = ConstBitWidth
    bit_width = 4
    signed = True
    narrow_range = True
    rounding_mode = "ROUND"
    scaling_min_val = 1e-10
    output_channel_dim = computed.output_channel_dim
    quant_delay_steps = 0

    @value
    def scaling_init(scaling_stats_impl: Any, module: Any, scaling_min_val: float) -> Tensor:
        """The learned scale starts where the computed one is."""
        return statistic_of_weights(scaling_stats_impl, module).clamp(min=scaling_min_val)

    @value
    def clamp_gradient(bit_width_impl: BitWidth) -> ClampGradient:
        """A clamped weight gets the gradient, so that it can come back; a bit width that learns gets it in its place."""
        return "masked" if bit_width_impl.learns else "pass"


class Int4WeightPerTensorFixedPointDecoupled(Int4WeightPerTensorFloatDecoupled):
    """As :class:`Int4WeightPerTensorFloatDecoupled`, with scales that are powers of two: thresholds rounded up, over 8.

    Options as :class:`Int4WeightPerTensorFloatDecoupled`, and ``restrict_rounding_mode``.

    >>> import torch, quant_nn as qnn
    >>> layer = qnn.QuantLinear(2, 2, bias=False, weight_quant=Int4WeightPerTensorFixedPointDecoupled)
    >>> _ = layer.load_state_dict({"weight": torch.tensor([[1.0, -0.5], [7.0, 0.2]])})
    >>> layer.quant_weight().int(), layer.weight_quant.scale().detach()
    (tensor([[1, 0],
            [7, 0]], dtype=torch.int8), tensor(1.))
    """

    restrict_scaling_impl = PowerOfTwoRestriction
    restrict_rounding_mode = "CEIL"


class Int8WeightPerChannelFloatDecoupled(Int4WeightPerTensorFloatDecoupled):
    """As :class:`Int4WeightPerTensorFloatDecoupled` with 8 bits, from the largest weight of each output channel.

    >>> import torch, quant_nn as qnn
    >>> layer = qnn.QuantLinear(2, 2, bias=False, weight_quant=Int8WeightPerChannelFloatDecoupled)
    >>> _ = layer.load_state_dict({"weight": torch.tensor([[1.0, -0.5], [127.0, 1.0]])})
    >>> layer.quant_weight().int(), layer.weight_quant.scale().flatten().detach()
    (tensor([[127, -64],
            [127,   1]], dtype=torch.int8), tensor([0.0079, 1.0000]))
    """

    scaling_stats_impl: Any = AbsMax
    bit_width = 8

    @value
    def granularity(module: Any) -> PerChannel:
        """Per output channel of the layer."""
        return PerChannel(computed.output_channel_dim.function(module))
