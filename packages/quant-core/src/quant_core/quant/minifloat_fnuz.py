"""Named quantizers to minifloats of eight bits with a bias that is larger by one, and NaN in the place of the negative zero.

Noune et al., "8-bit numerical formats for deep neural networks", arXiv:2206.02915.
"""

from __future__ import annotations

from quant_core.components import ConstScaling
from quant_core.quant.minifloat import Fp8e4m3ActPerTensorFloat, Fp8e4m3WeightPerTensorFloat


class Fp8e4m3FNUZWeightPerTensorFloat(Fp8e4m3WeightPerTensorFloat):
    """As :class:`Fp8e4m3WeightPerTensorFloat`, with 4 exponent and 3 mantissa bits and the larger bias, up to 240.

    >>> import torch, quant_nn as qnn
    >>> layer = qnn.QuantLinear(2, 1, bias=False, weight_quant=Fp8e4m3FNUZWeightPerTensorFloat)
    >>> _ = layer.weight.data.copy_(torch.tensor([[240.0, 17.3]]))
    >>> layer.quant_weight().value.tolist(), layer.weight_quant.scale().item()
    ([[240.0, 18.0]], 1.0)
    """

    exponent_bias = 8


class Fp8e4m3FNUZWeightPerChannelFloat(Fp8e4m3FNUZWeightPerTensorFloat):
    """As :class:`Fp8e4m3FNUZWeightPerTensorFloat`, with a scale for each output channel.

    >>> import torch, quant_nn as qnn
    >>> layer = qnn.QuantLinear(1, 2, bias=False, weight_quant=Fp8e4m3FNUZWeightPerChannelFloat)
    >>> _ = layer.weight.data.copy_(torch.tensor([[240.0], [480.0]]))
    >>> layer.weight_quant.scale().flatten().tolist()
    [1.0, 2.0]
    """

    scaling_per_output_channel = True


class Fp8e4m3FNUZActPerTensorFloat(Fp8e4m3ActPerTensorFloat):
    """As :class:`Fp8e4m3ActPerTensorFloat`, with 4 exponent and 3 mantissa bits and the larger bias, up to 240.

    >>> import torch, quant_nn as qnn
    >>> act = qnn.QuantIdentity(act_quant=Fp8e4m3FNUZActPerTensorFloat, return_quant_tensor=True)
    >>> act(torch.tensor([240.0, 17.3])).value.tolist()
    [240.0, 18.0]
    """

    exponent_bias = 8


class Fp8e5m2FNUZWeightPerTensorFloat(Fp8e4m3WeightPerTensorFloat):
    """As :class:`Fp8e4m3WeightPerTensorFloat`, with 5 exponent and 2 mantissa bits and the larger bias, up to 57344.

    >>> import torch, quant_nn as qnn
    >>> layer = qnn.QuantLinear(2, 1, bias=False, weight_quant=Fp8e5m2FNUZWeightPerTensorFloat)
    >>> _ = layer.weight.data.copy_(torch.tensor([[57344.0, 17.3]]))
    >>> layer.quant_weight().value.tolist(), layer.weight_quant.scale().item()
    ([[57344.0, 16.0]], 1.0)
    """

    exponent_bit_width = 5
    mantissa_bit_width = 2
    exponent_bias = 16


class Fp8e5m2FNUZWeightPerChannelFloat(Fp8e5m2FNUZWeightPerTensorFloat):
    """As :class:`Fp8e5m2FNUZWeightPerTensorFloat`, with a scale for each output channel.

    >>> import torch, quant_nn as qnn
    >>> layer = qnn.QuantLinear(1, 2, bias=False, weight_quant=Fp8e5m2FNUZWeightPerChannelFloat)
    >>> _ = layer.weight.data.copy_(torch.tensor([[57344.0], [114688.0]]))
    >>> layer.weight_quant.scale().flatten().tolist()
    [1.0, 2.0]
    """

    scaling_per_output_channel = True


class Fp8e5m2FNUZActPerTensorFloat(Fp8e4m3ActPerTensorFloat):
    """As :class:`Fp8e4m3ActPerTensorFloat`, with 5 exponent and 2 mantissa bits and the larger bias, up to 57344.

    >>> import torch, quant_nn as qnn
    >>> act = qnn.QuantIdentity(act_quant=Fp8e5m2FNUZActPerTensorFloat, return_quant_tensor=True)
    >>> act(torch.tensor([57344.0, 17.3])).value.tolist()
    [57344.0, 16.0]
    """

    exponent_bit_width = 5
    mantissa_bit_width = 2
    exponent_bias = 16


class Fp8e4m3FNUZWeight(Fp8e4m3FNUZWeightPerTensorFloat):
    """As :class:`Fp8e4m3FNUZWeightPerTensorFloat`, with the scale 1: numbers of the format as they are, up to 240.

    >>> import quant_nn as qnn
    >>> qnn.QuantLinear(2, 1, bias=False, weight_quant=Fp8e4m3FNUZWeight).weight_quant.scale()
    tensor(1.)
    """

    scaling_impl = ConstScaling
    scaling_init = 240.0


class Fp8e4m3FNUZAct(Fp8e4m3FNUZActPerTensorFloat):
    """As :class:`Fp8e4m3FNUZActPerTensorFloat`, with the scale 1: numbers of the format as they are, up to 240.

    >>> import quant_nn as qnn
    >>> qnn.QuantIdentity(act_quant=Fp8e4m3FNUZAct).act_quant.scale()
    tensor(1.)
    """

    scaling_impl = ConstScaling
    scaling_init = 240.0


class Fp8e5m2FNUZWeight(Fp8e5m2FNUZWeightPerTensorFloat):
    """As :class:`Fp8e5m2FNUZWeightPerTensorFloat`, with the scale 1: numbers of the format as they are, up to 57344.

    >>> import quant_nn as qnn
    >>> qnn.QuantLinear(2, 1, bias=False, weight_quant=Fp8e5m2FNUZWeight).weight_quant.scale()
    tensor(1.)
    """

    scaling_impl = ConstScaling
    scaling_init = 57344.0


class Fp8e5m2FNUZAct(Fp8e5m2FNUZActPerTensorFloat):
    """As :class:`Fp8e5m2FNUZActPerTensorFloat`, with the scale 1: numbers of the format as they are, up to 57344.

    >>> import quant_nn as qnn
    >>> qnn.QuantIdentity(act_quant=Fp8e5m2FNUZAct).act_quant.scale()
    tensor(1.)
    """

    scaling_impl = ConstScaling
    scaling_init = 57344.0
