"""Named quantizers to three values: integers of 2 bits and narrow range.

With a threshold of its own, or a gradient that is scaled as that of binary values, use
``tensor_quant=quant_core.components.TernaryQuant`` and set ``threshold``.
"""

from __future__ import annotations

from quant_core.components import ConstBitWidth, ConstScaling, IntQuant, ZeroZeroPoint
from quant_core.inject import Injector
from quant_core.proxies import ActQuantProxyFromInjector, WeightQuantProxyFromInjector
from quant_core.shorthand import computed


class SignedTernaryWeightPerTensorConst(Injector):
    """Weights of −0.1, 0 and +0.1, the nearest of the three; the scale is fixed.

    Options (``weight_`` in front when given to a layer): ``scaling_init``, the scale; ``rounding_mode``;
    ``scaling_per_output_channel``; ``quant_delay_steps``; and any component by its name.

    >>> import torch, quant_nn as qnn
    >>> layer = qnn.QuantLinear(3, 1, bias=False, weight_quant=SignedTernaryWeightPerTensorConst)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.04, -0.06, 3.0]]))
    >>> layer.quant_weight().int(), layer.weight_quant.scale()
    (tensor([[ 0, -1,  1]], dtype=torch.int8), tensor(0.1000))
    """

    proxy_class = WeightQuantProxyFromInjector
    tensor_quant = IntQuant
    scaling_impl = ConstScaling
    bit_width_impl = ConstBitWidth
    zero_point_impl = ZeroZeroPoint
    scaling_init = 0.1
    scaling_per_output_channel = False
    output_channel_dim = computed.output_channel_dim
    granularity = computed.weight_granularity
    bit_width = 2
    signed = True
    narrow_range = True
    rounding_mode = "ROUND"
    clamp_gradient = "pass"
    quant_delay_steps = 0


class SignedTernaryActPerTensorConst(Injector):
    """Activations of −1, 0 and +1, the nearest of the three. What lies beyond the scale gets no gradient.

    Options: ``scaling_init``, the scale; ``rounding_mode``; ``quant_delay_steps``; and any component by its name.

    >>> import torch, quant_nn as qnn
    >>> three = qnn.QuantIdentity(act_quant=SignedTernaryActPerTensorConst)
    >>> three(torch.tensor([0.4, -3.0])), three.act_quant.scale()
    (tensor([ 0., -1.]), tensor(1.))
    """

    proxy_class = ActQuantProxyFromInjector
    tensor_quant = IntQuant
    scaling_impl = ConstScaling
    bit_width_impl = ConstBitWidth
    zero_point_impl = ZeroZeroPoint
    scaling_init = 1.0
    bit_width = 2
    signed = True
    narrow_range = True
    rounding_mode = "ROUND"
    clamp_gradient = "masked"
    quant_delay_steps = 0
