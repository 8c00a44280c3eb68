"""Named quantizers to minifloats of eight bits in the formats of the Open Compute Project.

In e4m3 the mantissa 111 beside the largest exponent is NaN; in e5m2 the largest exponent holds infinity and NaN only, as in
IEEE 754.

Open Compute Project, "8-bit floating point specification (OFP8)", revision 1.0.
"""

from __future__ import annotations

from quant_core.components import ConstScaling
from quant_core.quant.minifloat import Fp8e4m3ActPerTensorFloat, Fp8e4m3WeightPerTensorFloat


class Fp8e4m3OCPWeightPerTensorFloat(Fp8e4m3WeightPerTensorFloat):
    """As :class:`Fp8e4m3WeightPerTensorFloat`, in the OCP format with 4 exponent and 3 mantissa bits, up to 448.

    >>> import torch, quant_nn as qnn
    >>> layer = qnn.QuantLinear(2, 1, bias=False, weight_quant=Fp8e4m3OCPWeightPerTensorFloat)
    >>> _ = layer.weight.data.copy_(torch.tensor([[448.0, 17.3]]))
    >>> layer.quant_weight().value.tolist(), layer.weight_quant.scale().item()
    ([[448.0, 18.0]], 1.0)
    """

    nan_values = ("111",)


class Fp8e4m3OCPWeightPerChannelFloat(Fp8e4m3OCPWeightPerTensorFloat):
    """As :class:`Fp8e4m3OCPWeightPerTensorFloat`, with a scale for each output channel.

    >>> import torch, quant_nn as qnn
    >>> layer = qnn.QuantLinear(1, 2, bias=False, weight_quant=Fp8e4m3OCPWeightPerChannelFloat)
    >>> _ = layer.weight.data.copy_(torch.tensor([[448.0], [896.0]]))
    >>> layer.weight_quant.scale().flatten().tolist()
    [1.0, 2.0]
    """

    scaling_per_output_channel = True


class Fp8e4m3OCPActPerTensorFloat(Fp8e4m3ActPerTensorFloat):
    """As :class:`Fp8e4m3ActPerTensorFloat`, in the OCP format with 4 exponent and 3 mantissa bits, up to 448.

    >>> import torch, quant_nn as qnn
    >>> act = qnn.QuantIdentity(act_quant=Fp8e4m3OCPActPerTensorFloat, return_quant_tensor=True)
    >>> act(torch.tensor([448.0, 17.3])).value.tolist()
    [448.0, 18.0]
    """

    nan_values = ("111",)


class Fp8e5m2OCPWeightPerTensorFloat(Fp8e4m3WeightPerTensorFloat):
    """As :class:`Fp8e4m3WeightPerTensorFloat`, in the OCP format with 5 exponent and 2 mantissa bits, up to 57344.

    >>> import torch, quant_nn as qnn
    >>> layer = qnn.QuantLinear(2, 1, bias=False, weight_quant=Fp8e5m2OCPWeightPerTensorFloat)
    >>> _ = layer.weight.data.copy_(torch.tensor([[57344.0, 17.3]]))
    >>> layer.quant_weight().value.tolist(), layer.weight_quant.scale().item()
    ([[57344.0, 16.0]], 1.0)
    """

    exponent_bit_width = 5
    mantissa_bit_width = 2
    inf_values = ("00",)
    nan_values = ("01", "10", "11")


class Fp8e5m2OCPWeightPerChannelFloat(Fp8e5m2OCPWeightPerTensorFloat):
    """As :class:`Fp8e5m2OCPWeightPerTensorFloat`, with a scale for each output channel.

    >>> import torch, quant_nn as qnn
    >>> layer = qnn.QuantLinear(1, 2, bias=False, weight_quant=Fp8e5m2OCPWeightPerChannelFloat)
    >>> _ = layer.weight.data.copy_(torch.tensor([[57344.0], [114688.0]]))
    >>> layer.weight_quant.scale().flatten().tolist()
    [1.0, 2.0]
    """

    scaling_per_output_channel = True


class Fp8e5m2OCPActPerTensorFloat(Fp8e4m3ActPerTensorFloat):
    """As :class:`Fp8e4m3ActPerTensorFloat`, in the OCP format with 5 exponent and 2 mantissa bits, up to 57344.

    >>> import torch, quant_nn as qnn
    >>> act = qnn.QuantIdentity(act_quant=Fp8e5m2OCPActPerTensorFloat, return_quant_tensor=True)
    >>> act(torch.tensor([57344.0, 17.3])).value.tolist()
    [57344.0, 16.0]
    """

    exponent_bit_width = 5
    mantissa_bit_width = 2
    inf_values = ("00",)
    nan_values = ("01", "10", "11")


class Fp8e4m3OCPWeight(Fp8e4m3OCPWeightPerTensorFloat):
    """As :class:`Fp8e4m3OCPWeightPerTensorFloat`, with the scale 1: numbers of the format as they are, up to 448.

    >>> import quant_nn as qnn
    >>> qnn.QuantLinear(2, 1, bias=False, weight_quant=Fp8e4m3OCPWeight).weight_quant.scale()
    tensor(1.)
    """

    scaling_impl = ConstScaling
    scaling_init = 448.0


class Fp8e4m3OCPAct(Fp8e4m3OCPActPerTensorFloat):
    """As :class:`Fp8e4m3OCPActPerTensorFloat`, with the scale 1: numbers of the format as they are, up to 448.

    >>> import quant_nn as qnn
    >>> qnn.QuantIdentity(act_quant=Fp8e4m3OCPAct).act_quant.scale()
    tensor(1.)
    """

    scaling_impl = ConstScaling
    scaling_init = 448.0


class Fp8e5m2OCPWeight(Fp8e5m2OCPWeightPerTensorFloat):
    """As :class:`Fp8e5m2OCPWeightPerTensorFloat`, with the scale 1: numbers of the format as they are, up to 57344.

    >>> import quant_nn as qnn
    >>> qnn.QuantLinear(2, 1, bias=False, weight_quant=Fp8e5m2OCPWeight).weight_quant.scale()
    tensor(1.)
    """

    scaling_impl = ConstScaling
    scaling_init = 57344.0


class Fp8e5m2OCPAct(Fp8e5m2OCPActPerTensorFloat):
    """As :class:`Fp8e5m2OCPActPerTensorFloat`, with the scale 1: numbers of the format as they are, up to 57344.

    >>> import quant_nn as qnn
    >>> qnn.QuantIdentity(act_quant=Fp8e5m2OCPAct).act_quant.scale()
    tensor(1.)
    """

    scaling_impl = ConstScaling
    scaling_init = 57344.0
