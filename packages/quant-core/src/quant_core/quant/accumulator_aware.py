"""Named quantizers of normalized weights, and of weights whose accumulator cannot overflow."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from quant_core.components import (
    AbsMax,
    AccumulatorAwareIntQuant,
    AccumulatorAwarePreScaling,
    AccumulatorAwareZeroCenterPreScaling,
    BitWidth,
    ConstBitWidth,
    L1Norm,
    L2Norm,
    LogFloatRestriction,
    ParameterScaling,
    PerChannel,
    WeightNormIntQuant,
    WeightNormPreScaling,
)
from quant_core.components.weight_statistic import statistic_of_weights
from quant_core.inject import Injector, value
from quant_core.ops import integer_range
from quant_core.proxies import WeightQuantProxyFromInjector
from quant_core.shorthand import computed


class Int8WeightNormL2PerChannelFixedPoint(Injector):
    """Signed, narrow-range integers of a weight of learned direction and length, with a learned scale, per output channel.

    The length starts at the L2 norm of the channel, the scale at its largest magnitude over 127; the scale is learned as its
    logarithm.

    Options (``weight_`` in front when given to a layer): ``bit_width``, ``narrow_range``, ``rounding_mode``,
    ``clamp_gradient``, ``scaling_min_val``, ``pre_scaling_min_val``, ``quant_delay_steps``, and any component by its name.

    >>> import torch, quant_nn as qnn
    >>> layer = qnn.QuantLinear(2, 1, bias=False, weight_quant=Int8WeightNormL2PerChannelFixedPoint)
    >>> _ = layer.load_state_dict({"weight": torch.tensor([[0.5, -1.27]])})
    >>> layer.quant_weight().int(), layer.weight_quant.scale().detach()
    (tensor([[  50, -127]], dtype=torch.int8), tensor([[0.0100]]))
    """

    proxy_class = WeightQuantProxyFromInjector
    tensor_quant: Any = WeightNormIntQuant
    scaling_impl = ParameterScaling
    restrict_scaling_impl = LogFloatRestriction
    scaling_stats_impl = AbsMax
    pre_scaling_impl: Any = WeightNormPreScaling
    normalize_stats_impl: Any = L2Norm
    bit_width_impl = ConstBitWidth
    bit_width = 8
    signed = True
    narrow_range = True
    rounding_mode = "ROUND"
    clamp_gradient = "masked"
    scaling_min_val = 1e-10
    pre_scaling_min_val = 1e-10
    quant_delay_steps = 0

    @value
    def granularity(module: Any) -> PerChannel:
        """Per output channel of the layer."""
        return PerChannel(computed.output_channel_dim.function(module))

    @value
    def scaling_init(
        scaling_stats_impl: Any, module: Any, bit_width_impl: BitWidth, narrow_range: bool, scaling_min_val: float
    ) -> Tensor:
        """The largest magnitude of each channel over the largest integer."""
        _, high = integer_range(bit_width_impl().detach(), signed=True, narrow_range=narrow_range)
        scale: Tensor = statistic_of_weights(scaling_stats_impl, module).clamp(min=scaling_min_val) / high
        return scale

    @value
    def pre_scaling_init(normalize_stats_impl: Any, module: Any) -> Tensor:
        """The norm of each channel."""
        return statistic_of_weights(normalize_stats_impl, module)


class Int8AccumulatorAwareWeightQuant(Int8WeightNormL2PerChannelFixedPoint):
    """Weights of 8 bits whose products with any input fit into an accumulator of ``accumulator_bit_width`` bits (A2Q).

    The layer must know the bits of its input: from ``input_quant``, from a quantized tensor that it gets, or from
    ``input_bit_width`` and ``input_signed``. The sum of magnitudes of the integers of each channel is bounded, see
    :class:`~quant_core.components.AccumulatorAwarePreScaling`. What a bias adds comes on top.

    Further options: ``accumulator_bit_width``, ``input_bit_width``, ``input_signed``. It rounds towards zero only.

    >>> import torch, quant_nn as qnn
    >>> from quant_core.quant import Int8ActPerTensorFloat
    >>> layer = qnn.QuantLinear(
    ...     64, 1, bias=False, weight_quant=Int8AccumulatorAwareWeightQuant, weight_accumulator_bit_width=12,
    ...     input_quant=Int8ActPerTensorFloat,
    ... )
    >>> weight = layer.quant_weight()
    >>> int(weight.int().abs().sum()) * 2**7 <= 2**11 - 1, weight.scale.shape
    (True, torch.Size([1, 1]))
    """

    tensor_quant = AccumulatorAwareIntQuant
    pre_scaling_impl = AccumulatorAwarePreScaling
    normalize_stats_impl = L1Norm
    accumulator_bit_width = 32
    input_bit_width: Any = None
    input_signed: Any = None


class Int8AccumulatorAwareZeroCenterWeightQuant(Int8AccumulatorAwareWeightQuant):
    """As :class:`Int8AccumulatorAwareWeightQuant` for weights without their mean (A2Q+): nearly twice the magnitudes fit.

    The mean of each channel is taken off before rounding, so that the output loses ``mean(w) · Σ x``.

    >>> import torch, quant_nn as qnn
    >>> from quant_core.quant import Int8ActPerTensorFloat
    >>> layer = qnn.QuantLinear(
    ...     64, 1, bias=False, weight_quant=Int8AccumulatorAwareZeroCenterWeightQuant, weight_accumulator_bit_width=12,
    ...     input_quant=Int8ActPerTensorFloat,
    ... )
    >>> int(layer.accumulator(torch.zeros(1, 64)).bit_width) <= 12
    True
    """

    pre_scaling_impl = AccumulatorAwareZeroCenterPreScaling
