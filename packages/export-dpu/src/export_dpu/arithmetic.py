"""The arithmetic of a DPU: integers that are shifted, rounded and saturated to 8 bits."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from quant_core.ops import round_to_integer

LOW: Final = -128
HIGH: Final = 127
_WIDEST: Final = 62
"""A shift by more bits than this leaves less than one half."""


def saturate(x: Tensor) -> Tensor:
    """``x``, int64, within the 8 bits of a DPU.

    >>> saturate(torch.tensor([-300, 5, 128]))
    tensor([-128,    5,  127])
    """
    return x.clamp(LOW, HIGH)


def shift(x: Tensor, bits: int, rounding_mode: str) -> Tensor:
    """``x · 2^−bits``, int64, rounded to integers.

    A negative number of bits shifts to the left, where results beyond 2^24 are cut off at 2^24: they saturate anyway.

    Args:
        x: int64, below 2^62 in size.
        bits: how many of its bits are dropped.
        rounding_mode: ``"DPU"``, ``"HALF_UP"`` or ``"ROUND"``: what becomes of values halfway between two integers.

    >>> shift(torch.tensor([-6, -2, 2, 6, 10]), 2, "DPU")
    tensor([-1,  0,  0,  2,  2])
    >>> shift(torch.tensor([-6, -2, 2, 6, 10]), 2, "HALF_UP")
    tensor([-1,  0,  1,  2,  3])
    >>> shift(torch.tensor([3]), -2, "DPU")
    tensor([12])
    """
    if bits <= 0:
        widest = 1 << 24
        return (x.clamp(-widest, widest) << min(-bits, 24)).clamp(-widest, widest)
    if bits > _WIDEST:
        return torch.zeros_like(x)
    below, half = x >> bits, 1 << (bits - 1)
    rest = x - (below << bits)
    return below + ((rest > half) | ((rest == half) & _goes_up(x, below, rounding_mode))).to(torch.int64)


def _goes_up(x: Tensor, below: Tensor, rounding_mode: str) -> Tensor:
    """Whether values halfway between two integers are rounded to the upper one."""
    odd = (below & 1) == 1
    if rounding_mode == "HALF_UP":
        return torch.ones_like(odd)
    return odd | (x < 0) if rounding_mode == "DPU" else odd


def to_integers(x: Tensor, position: int, rounding_mode: str) -> Tensor:
    """Real numbers as 8-bit integers, int64: ``saturate(round(x · 2^position))``.

    >>> to_integers(torch.tensor([0.3, -0.3, 9.0]), 5, "DPU")
    tensor([ 10, -10, 127])
    """
    scaled = torch.ldexp(x.to(torch.float64), torch.tensor(position))
    return round_to_integer(scaled, rounding_mode).clamp(LOW, HIGH).to(torch.int64)


def to_real(x: Tensor, position: int) -> Tensor:
    """The real numbers that integers stand for, float32: ``x · 2^−position``, exact for 8 bits.

    >>> to_real(torch.tensor([10, -128]), 5)
    tensor([ 0.3125, -4.0000])
    """
    return torch.ldexp(x.to(torch.float64), torch.tensor(-position)).to(torch.float32)
