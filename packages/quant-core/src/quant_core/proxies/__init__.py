"""Proxies: what stands between a layer and its quantizers."""

from quant_core.proxies.accumulator import (
    AccumulatorQuantProxy,
    ClampQuantProxyFromInjector,
    TruncQuantProxyFromInjector,
)
from quant_core.proxies.activation import ActQuantProxyFromInjector
from quant_core.proxies.bias import BiasQuantProxyFromInjector
from quant_core.proxies.proxy import QuantProxy
from quant_core.proxies.weight import WeightQuantProxyFromInjector

__all__ = [
    "AccumulatorQuantProxy",
    "ActQuantProxyFromInjector",
    "BiasQuantProxyFromInjector",
    "ClampQuantProxyFromInjector",
    "QuantProxy",
    "TruncQuantProxyFromInjector",
    "WeightQuantProxyFromInjector",
]
