"""A quantizer in two words, for the ``repr`` of the layer that holds it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from quant_core.errors import QuantError
from quant_core.proxies import AccumulatorQuantProxy, QuantProxy


def describe(proxy: QuantProxy) -> str:
    """``int4 per channel``, ``uint8 per tensor``, ``binary``, ``off``: what a proxy makes of its tensor.

    >>> import quant_nn as qnn
    >>> describe(qnn.QuantLinear(3, 2, weight_bit_width=4, weight_scaling_per_output_channel=True).weight_quant)
    'int4 per channel'
    """
    if not proxy.is_quant_enabled:
        return "off"
    return " ".join(word for word in (_integers(proxy), _granularity(proxy)) if word)


def _integers(proxy: QuantProxy) -> str:
    bits = _bits(proxy)
    if isinstance(proxy, AccumulatorQuantProxy):
        return f"{bits} bits"  # signed if what comes in is
    if bits == "1":
        return "binary"
    return f"{'' if proxy.signed else 'u'}int{bits}"


def _bits(proxy: QuantProxy) -> str:
    implementation: Any = getattr(proxy.tensor_quant, "bit_width_impl", None)
    constant = getattr(implementation, "constant", None)
    if constant is not None:
        return f"{float(constant):g}"
    with suppress(QuantError, TypeError), torch.no_grad():
        found = implementation()
        if isinstance(found, Tensor) and not found.is_meta:
            return f"{found.item():.3g}"
    return "?"


def _granularity(proxy: QuantProxy) -> str:
    """Told by the shape of the scale; nothing for a bias, which has the scale of its accumulator."""
    scale: Any = getattr(proxy, "scale", None)
    if scale is None:
        return ""
    with suppress(QuantError), torch.no_grad():
        shape = scale().shape
        larger = sum(size != 1 for size in shape)
        return ("per tensor", "per channel")[larger] if larger < 2 else "per group"
    return ""
