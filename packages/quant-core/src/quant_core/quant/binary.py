"""Named quantizers to two values."""

from __future__ import annotations

from quant_core.components import BinaryQuant, ClampedBinaryQuant, ConstScaling
from quant_core.inject import Injector
from quant_core.proxies import ActQuantProxyFromInjector, WeightQuantProxyFromInjector
from quant_core.shorthand import computed


class SignedBinaryWeightPerTensorConst(Injector):
    """Weights of −0.1 and +0.1: their sign, times a scale that is fixed.

    Options (``weight_`` in front when given to a layer): ``scaling_init``, the scale; ``scaling_per_output_channel``, for a
    ``scaling_impl`` that learns; ``quant_delay_steps``; and any component by its name.

    >>> import torch, quant_nn as qnn
    >>> layer = qnn.QuantLinear(2, 1, bias=False, weight_quant=SignedBinaryWeightPerTensorConst, weight_scaling_init=0.5)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.2, -3.0]]))
    >>> layer.quant_weight().value.tolist(), layer.weight_quant.scale()
    ([[0.5, -0.5]], tensor(0.5000))
    """

    proxy_class = WeightQuantProxyFromInjector
    tensor_quant = BinaryQuant
    scaling_impl = ConstScaling
    scaling_init = 0.1
    scaling_per_output_channel = False
    output_channel_dim = computed.output_channel_dim
    granularity = computed.weight_granularity
    quant_delay_steps = 0


class SignedBinaryActPerTensorConst(Injector):
    """Activations of −1 and +1: their sign, times a scale that is fixed. What lies beyond the scale gets no gradient.

    Options: ``scaling_init``, the scale; ``quant_delay_steps``; and any component by its name.

    >>> import torch, quant_nn as qnn
    >>> sign = qnn.QuantIdentity(act_quant=SignedBinaryActPerTensorConst)
    >>> sign(torch.tensor([0.2, -3.0])), sign.act_quant.scale()
    (tensor([ 1., -1.]), tensor(1.))
    """

    proxy_class = ActQuantProxyFromInjector
    tensor_quant = ClampedBinaryQuant
    scaling_impl = ConstScaling
    scaling_init = 1.0
    quant_delay_steps = 0
