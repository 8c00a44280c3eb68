"""How often each magnitude occurs, counted exactly, whatever comes after what.

The bins are ``[k·w, (k + 1)·w)``, and the width ``w`` is a power of two: the smallest with which the largest magnitude falls
in the last bin or before it. When a larger one comes, ``w`` doubles until it fits, and bins ``2k`` and ``2k + 1`` become bin
``k``. Laws:

- no count is lost: the sum of all bins is the number of elements;
- the histogram depends on the elements alone, not on their order or on how they were divided into batches, because each bin
  of a width lies in one bin of twice that width, and scaling by a power of two rounds nothing;
- so two histograms can be joined as if one had seen the elements of both (:func:`widen`, then a sum).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

SMALLEST_EXPONENT: Final = -100
"""Of a width: far below any scale, and its inverse is a float32 number."""

_CHUNK: Final = 1 << 17
"""So many elements at a time stay in the caches of a processor."""


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """How often each magnitude occurs, for each of ``R`` channels.

    Attributes:
        counts: ``(R, bins)``, int64.
        width: the width of a bin, ``(R,)``, float64.
        largest: the largest magnitude, ``(R,)``, float64.
    """

    counts: Tensor
    width: Tensor
    largest: Tensor

    @property
    def used(self) -> Tensor:
        """How many bins there are up to that of the largest magnitude, ``(R,)``; at least 1."""
        return (self.largest / self.width).floor().to(torch.int64).clamp(0, self.counts.shape[1] - 1) + 1

    def edge(self, cut: Tensor) -> Tensor:
        """The threshold that keeps the first ``cut`` bins, ``(R,)``: their upper edge, and never above the largest magnitude."""
        return torch.minimum(cut * self.width, self.largest)


def exponents(largest: Tensor, bins: int) -> Tensor:
    """``e``, the smallest with ``largest < bins · 2^e``, at least ``SMALLEST_EXPONENT``; int64.

    >>> exponents(torch.tensor([1.0, 0.99, 0.0], dtype=torch.float64), 4)
    tensor([  -1,   -2, -100])
    """
    found = torch.frexp(largest.to(torch.float64) / bins).exponent.to(torch.int64)
    return torch.where(largest > 0, found, SMALLEST_EXPONENT).clamp(min=SMALLEST_EXPONENT)


def widen(counts: Tensor, doublings: Tensor) -> Tensor:
    """The counts in bins that are ``2^doublings`` as wide.

    Args:
        counts: ``(R, bins)``, int64.
        doublings: ``(R,)``, int64, not negative.

    >>> widen(torch.tensor([[1, 2, 3, 4]]), torch.tensor([1]))
    tensor([[3, 7, 0, 0]])
    """
    if not bool(doublings.any()):
        return counts
    bins = torch.arange(counts.shape[1], device=counts.device)
    into = bins.expand_as(counts) >> doublings.clamp(max=62).unsqueeze(1)
    return torch.zeros_like(counts).scatter_add_(1, into, counts)


def count(rows: Tensor, exponent: Tensor, bins: int, *, signed: bool) -> Tensor:
    """How many elements of each row fall in each bin of the width ``2^exponent``: ``(R, n)`` → ``(R, bins)``, int64.

    Args:
        rows: float tensor; all magnitudes below ``bins · 2^exponent``.
        exponent: ``(R,)``, int64.
        bins: how many.
        signed: whether magnitudes of negative elements count; otherwise they count as 0.

    >>> count(torch.tensor([[0.1, -0.6, 0.9]]), torch.tensor([-1]), 4, signed=True)
    tensor([[1, 2, 0, 0]])
    """
    wide = rows if rows.dtype == torch.float64 else rows.to(torch.float32)
    index_type = torch.int32 if len(rows) * bins < 2**31 else torch.int64
    per_unit: Tensor | float
    if len(rows) == 1:
        per_unit = 2.0 ** -exponent.item()
    else:
        per_unit = torch.ldexp(torch.ones_like(exponent, dtype=wide.dtype), -exponent).unsqueeze(1)
        offsets = (torch.arange(len(rows), device=rows.device).unsqueeze(1) * bins).to(index_type)
    counts = torch.zeros(len(rows) * bins, dtype=torch.int64, device=rows.device)
    for part in wide.split(max(_CHUNK, len(counts)) // len(rows), dim=1):
        magnitude = part.abs() if signed else part.clamp(min=0)
        index = magnitude.mul_(per_unit).to(index_type)
        if len(rows) > 1:
            index += offsets
        counts += torch.bincount(index.flatten(), minlength=len(counts))
    return counts.reshape(len(rows), bins)
