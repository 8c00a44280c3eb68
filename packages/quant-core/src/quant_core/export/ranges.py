"""Which integers there can be: those of a quantizer, and those of sums of products with a weight."""

from __future__ import annotations

import torch
from torch import Tensor

from quant_core.export.quantizer import Quantizer
from quant_core.ops.integer import integer_range


def bounds(quantizer: Quantizer) -> tuple[int, int]:
    """The smallest and the largest integer of a quantizer whose bit width is constant."""
    if quantizer.op in ("quant::binary", "quant::ternary"):
        return -1, 1
    assert quantizer.bit_width is not None
    kinds = {"signed": quantizer.signed, "narrow_range": quantizer.narrow_range}
    low, high = integer_range(quantizer.bit_width, **kinds)
    return int(low), int(high)


def sums_of_products(low: int, high: int, weight: Tensor, output_axis: int) -> tuple[Tensor, Tensor]:
    """The bounds of ``Σ x·w`` for integers ``x`` from ``low`` to ``high``, for each output channel of a weight, int64.

    >>> sums_of_products(0, 3, torch.tensor([[1, -2], [1, 1]]), 0)
    (tensor([-6,  0]), tensor([3, 6]))
    """
    rows = weight.to(torch.int64).movedim(output_axis, 0).flatten(1)
    positive, negative = rows.clamp(min=0).sum(1), rows.clamp(max=0).sum(1)
    return low * positive + high * negative, high * positive + low * negative


def bits_of(low: int, high: int) -> tuple[int, bool]:
    """The fewest bits that hold a range, and whether they are signed.

    >>> bits_of(0, 255), bits_of(-128, 127), bits_of(-1, 0)
    ((8, False), (8, True), (1, True))
    """
    if low >= 0:
        return max(1, high.bit_length()), False
    return 1 + max(max(0, high).bit_length(), (-low - 1).bit_length()), True
