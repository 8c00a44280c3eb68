"""The operations that a step of a recurrent layer is made of, on tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from quant_core.proxies import QuantProxy
from quant_rnn.quantizing import quantized, value

Number = Any
"""A tensor ``(B, width)``; or what stands for one while a step is recorded, see :mod:`quant_rnn.native.recorder`."""


class Stages:
    """What a cell says its step in, besides ``*``, ``+`` and ``1 −``: here it computes it.

    >>> Stages().linear(torch.ones(1, 2), torch.ones(3, 2), torch.zeros(3))
    tensor([[2., 2., 2.]])
    """

    def linear(self, x: Number, weight: Tensor, added: Number | None = None) -> Number:
        """``x·Wᵀ + added``, where what is added is a bias ``(width,)``, a tensor ``(B, width)``, or nothing."""
        if added is None or added.dim() == 1:
            return F.linear(x, weight, added)
        return torch.addmm(added, x, weight.t())

    def columns(self, x: Number, start: int, stop: int) -> Number:
        """Some of the columns of ``x``."""
        return x[:, start:stop]

    def split(self, x: Number, parts: int) -> tuple[Number, ...]:
        """All columns of ``x`` in parts of one width."""
        return tuple(x.chunk(parts, dim=1))

    def sigmoid(self, x: Number) -> Number:
        """``1 / (1 + exp(−x))``."""
        return torch.sigmoid(x)

    def tanh(self, x: Number) -> Number:
        """The hyperbolic tangent."""
        return torch.tanh(x)

    def relu(self, x: Number) -> Number:
        """``max(x, 0)``."""
        return torch.relu(x)

    def quantized(self, quantizer: QuantProxy | None, x: Number) -> Number:
        """What the quantizer makes of ``x``, with its grid; ``x`` where there is none."""
        return quantized(quantizer, x)

    def value(self, quantizer: QuantProxy | None, x: Number) -> Number:
        """The same without the grid."""
        return value(quantizer, x)


ON_TENSORS = Stages()
