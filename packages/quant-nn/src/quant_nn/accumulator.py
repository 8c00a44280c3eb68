"""Accumulators with fewer bits: what a layer returns, shifted or saturated before the next one takes it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from quant_core.proxies import AccumulatorQuantProxy
from quant_core.quant import ClampTo16bit, RoundTo8bit
from quant_core.tensor import QuantTensor
from quant_nn.layer import QuantLayer
from quant_nn.options import split_options
from quant_nn.quantizers import Quantizer, build_proxy


class TruncQuantAccumulator(QuantLayer):
    """Drops the low bits of an accumulator.

    Args:
        trunc_quant: how: by default the 8 most significant bits, rounded to the nearest; ``None`` keeps all.
        return_quant_tensor: return a ``QuantTensor`` instead of its value.
        **options: options of the quantizer by their name.

    Raises:
        UnusedAttributeError: for an option that nothing reads.
        ConfigurationError: when the quantizer is none of accumulators.
        InputError: by a call with a plain tensor, or with one of minifloats or with a zero-point.

    >>> import torch, quant_nn as qnn
    >>> layer = qnn.QuantLinear(4, 2, bias=False, weight_bit_width=4, return_quant_tensor=True)
    >>> x = qnn.QuantIdentity(bit_width=4, return_quant_tensor=True)(torch.ones(1, 4))
    >>> layer(x).bit_width, TruncQuantAccumulator(bit_width=6)(layer(x)).bit_width
    (tensor(10.), tensor(6.))
    >>> TruncQuantAccumulator(bit_width=6)
    TruncQuantAccumulator(trunc: 6 bits)
    """

    def __init__(self, trunc_quant: Quantizer = RoundTo8bit, return_quant_tensor: bool = True, **options: Any) -> None:
        super().__init__()
        found = split_options(type(self), options, {"": trunc_quant})[""]
        self.return_quant_tensor = return_quant_tensor
        self.trunc_quant = _proxy(self, "trunc_quant", trunc_quant, found)

    def forward(self, input: QuantTensor) -> Tensor | QuantTensor:
        """A ``QuantTensor`` of any shape; returns the same shape on a coarser grid."""
        return self._hand_on(input if self.trunc_quant is None else self.trunc_quant(input))


class ClampQuantAccumulator(QuantLayer):
    """Drops the high bits of an accumulator: values beyond the range that remains saturate.

    Args:
        clamp_quant: how: by default at 16 bits; ``None`` keeps all.
        return_quant_tensor: return a ``QuantTensor`` instead of its value.
        **options: options of the quantizer by their name.

    Raises:
        UnusedAttributeError: for an option that nothing reads.
        ConfigurationError: when the quantizer is none of accumulators.
        InputError: by a call with a plain tensor, or with one of minifloats or with a zero-point.

    >>> import torch, quant_nn as qnn
    >>> layer = qnn.QuantLinear(4, 2, bias=False, weight_bit_width=8, return_quant_tensor=True)
    >>> x = qnn.QuantIdentity(return_quant_tensor=True)(torch.ones(1, 4))
    >>> layer(x).bit_width, ClampQuantAccumulator()(layer(x)).bit_width
    (tensor(18.), tensor(16.))
    """

    def __init__(self, clamp_quant: Quantizer = ClampTo16bit, return_quant_tensor: bool = True, **options: Any) -> None:
        super().__init__()
        found = split_options(type(self), options, {"": clamp_quant})[""]
        self.return_quant_tensor = return_quant_tensor
        self.clamp_quant = _proxy(self, "clamp_quant", clamp_quant, found)

    def forward(self, input: QuantTensor) -> Tensor | QuantTensor:
        """A ``QuantTensor`` of any shape; returns the same shape on the same grid with fewer bits."""
        return self._hand_on(input if self.clamp_quant is None else self.clamp_quant(input))


def _proxy(layer: QuantLayer, name: str, quantizer: Quantizer, options: dict[str, Any]) -> AccumulatorQuantProxy | None:
    proxy = build_proxy(layer, quantizer, "", options, name=name, kind="accumulator")
    assert proxy is None or isinstance(proxy, AccumulatorQuantProxy)
    return proxy
