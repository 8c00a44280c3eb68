"""Named quantizers of biases."""

from __future__ import annotations

from typing import Any

from quant_core.components import (
    AbsMax,
    ConstBitWidth,
    IntQuant,
    PrescaledIntQuant,
    StatsFromParameterScaling,
    ZeroZeroPoint,
)
from quant_core.inject import Injector
from quant_core.proxies import BiasQuantProxyFromInjector


class IntBias(Injector):
    """Signed integers at the scale of the accumulator, ``input scale · weight scale``; the input must be quantized.

    It has no ``bit_width`` of its own: the layer, or a subclass, gives one.

    Options (``bias_`` in front when given to a layer): ``bit_width``, ``narrow_range``, ``rounding_mode``,
    ``quant_delay_steps``, and any component by its name.

    >>> import torch, quant_nn as qnn
    >>> layer = qnn.QuantLinear(2, 1, bias_quant=IntBias, bias_bit_width=12)
    >>> layer.bias_quant(layer.bias, torch.tensor(0.01)).scale  # of the input times that of the weight
    tensor(0.0100)
    """

    proxy_class = BiasQuantProxyFromInjector
    tensor_quant = PrescaledIntQuant
    bit_width_impl = ConstBitWidth
    signed = True
    narrow_range = False
    rounding_mode = "ROUND"
    clamp_gradient = "masked"
    quant_delay_steps = 0


class Int8Bias(IntBias):
    """As :class:`IntBias`, with 8 bits.

    >>> import torch, quant_nn as qnn
    >>> layer = qnn.QuantLinear(2, 1, bias_quant=Int8Bias)
    >>> layer.bias_quant(layer.bias, torch.tensor(0.01)).scale  # of the input times that of the weight
    tensor(0.0100)
    """

    bit_width = 8


class Int16Bias(IntBias):
    """As :class:`IntBias`, with 16 bits.

    >>> import torch, quant_nn as qnn
    >>> layer = qnn.QuantLinear(2, 1, bias_quant=Int16Bias)
    >>> layer.bias_quant(layer.bias, torch.tensor(0.01)).scale  # of the input times that of the weight
    tensor(0.0100)
    """

    bit_width = 16


class Int24Bias(IntBias):
    """As :class:`IntBias`, with 24 bits.

    >>> import torch, quant_nn as qnn
    >>> layer = qnn.QuantLinear(2, 1, bias_quant=Int24Bias)
    >>> layer.bias_quant(layer.bias, torch.tensor(0.01)).scale  # of the input times that of the weight
    tensor(0.0100)
    """

    bit_width = 24


class Int32Bias(IntBias):
    """As :class:`IntBias`, with 32 bits.

    >>> import torch, quant_nn as qnn
    >>> layer = qnn.QuantLinear(2, 1, bias_quant=Int32Bias)
    >>> layer.bias_quant(layer.bias, torch.tensor(0.01)).scale  # of the input times that of the weight
    tensor(0.0100)
    """

    bit_width = 32


class Int8BiasPerTensorFloatInternalScaling(Injector):
    """Signed integers with a scale of their own, ``max|b| / 128``, computed from the bias at each step.

    The input of the layer may be a float tensor. Where it is quantized, the result of the layer is not on the grid of the
    accumulator, because the bias is not.

    Options as :class:`IntBias`, and ``scaling_min_val``.

    >>> import torch, quant_nn as qnn
    >>> layer = qnn.QuantLinear(2, 1, bias_quant=Int8BiasPerTensorFloatInternalScaling)
    >>> _ = layer.bias.data.fill_(1.28)
    >>> layer.bias_quant(layer.bias, None).scale.detach()
    tensor(0.0100)
    """

    proxy_class = BiasQuantProxyFromInjector
    tensor_quant: Any = IntQuant
    scaling_impl: Any = StatsFromParameterScaling
    scaling_stats_impl: Any = AbsMax
    parameter_name = "bias"
    bit_width_impl: Any = ConstBitWidth
    zero_point_impl: Any = ZeroZeroPoint
    bit_width = 8
    signed = True
    narrow_range = False
    rounding_mode = "ROUND"
    clamp_gradient = "pass"
    scaling_min_val = 1e-10
    quant_delay_steps = 0
