"""What quantization loses: noise and saturation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from quant_core.ops import integer_range
from quant_core.tensor import QuantTensor


def sqnr(x: Tensor, quantized: QuantTensor) -> float | None:
    """``10 · log10(Σ x² / Σ (x − q)²)``, the signal-to-quantization-noise ratio in dB; ``None`` for nothing, or no noise at all.

    >>> x = torch.tensor([3.0, 4.0])
    >>> q = QuantTensor(torch.tensor([3.0, 3.5]), torch.tensor(0.5), torch.tensor(0.0), torch.tensor(4.0), signed=True)
    >>> sqnr(x, q)
    20.0
    """
    wide = x.detach().to(torch.float64)
    signal, noise = float(wide.square().sum()), float((wide - quantized.value.detach()).square().sum())
    return 10 * math.log10(signal / noise) if signal > 0 and noise > 0 else None


def saturation(x: Tensor, quantized: QuantTensor) -> float | None:
    """The share of elements that are half a step or more beyond the range of the integers; ``None`` for binary values.

    >>> x = torch.tensor([0.2, 1.4, 1.6, 9.0])
    >>> q = QuantTensor(x.round().clamp(max=1), torch.tensor(1.0), torch.tensor(0.0), torch.tensor(1.0), signed=False)
    >>> saturation(x, q)
    0.5
    """
    if quantized.float_format is not None or (quantized.signed and float(quantized.bit_width) == 1) or not x.numel():
        return None
    low, high = integer_range(quantized.bit_width, signed=quantized.signed, narrow_range=quantized.narrow_range)
    level = x.detach() / quantized.scale + quantized.zero_point
    return float(((level < low - 0.5) | (level > high + 0.5)).to(torch.float64).mean())
