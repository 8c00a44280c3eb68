"""Quantizers that quantize nothing: a layer that is given one keeps its proxy, and computes with floats.

``weight_quant=None`` does the same without a proxy. These are for code that always passes a quantizer, and for layers whose
quantizer is to be replaced later. They have no options.
"""

from __future__ import annotations

from quant_core.inject import Injector
from quant_core.proxies import (
    ActQuantProxyFromInjector,
    BiasQuantProxyFromInjector,
    ClampQuantProxyFromInjector,
    TruncQuantProxyFromInjector,
    WeightQuantProxyFromInjector,
)


class NoneWeightQuant(Injector):
    """Leaves a weight as it is.

    >>> import quant_nn as qnn
    >>> layer = qnn.QuantLinear(2, 1, weight_quant=NoneWeightQuant)
    >>> layer.quant_weight() is layer.weight, layer.weight_quant.is_quant_enabled
    (True, False)
    """

    proxy_class = WeightQuantProxyFromInjector
    tensor_quant = None


class NoneActQuant(Injector):
    """Leaves an activation as its function gives it.

    >>> import torch, quant_nn as qnn
    >>> qnn.QuantReLU(act_quant=NoneActQuant)(torch.tensor([-0.3, 0.3]))
    tensor([0.0000, 0.3000])
    """

    proxy_class = ActQuantProxyFromInjector
    tensor_quant = None


class NoneBiasQuant(Injector):
    """Leaves a bias as it is.

    >>> import quant_nn as qnn
    >>> qnn.QuantLinear(2, 1, bias_quant=NoneBiasQuant).bias_quant.is_quant_enabled
    False
    """

    proxy_class = BiasQuantProxyFromInjector
    tensor_quant = None


class NoneTruncQuant(Injector):
    """Keeps all bits of an accumulator.

    >>> import quant_nn as qnn
    >>> qnn.TruncQuantAccumulator(trunc_quant=NoneTruncQuant).trunc_quant.is_quant_enabled
    False
    """

    proxy_class = TruncQuantProxyFromInjector
    tensor_quant = None


class NoneClampQuant(Injector):
    """Clamps nothing.

    >>> import quant_nn as qnn
    >>> qnn.ClampQuantAccumulator(clamp_quant=NoneClampQuant).clamp_quant.is_quant_enabled
    False
    """

    proxy_class = ClampQuantProxyFromInjector
    tensor_quant = None
