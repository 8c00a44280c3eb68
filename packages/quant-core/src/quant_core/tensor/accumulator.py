"""How many bits the sum of products of a layer needs."""

from __future__ import annotations

import torch
from torch import Tensor

from quant_core.tensor.arithmetic import products
from quant_core.tensor.grids import bits
from quant_core.tensor.quant_tensor import QuantTensor


def accumulator_bit_width(x: QuantTensor, weight: QuantTensor, *, terms: int) -> Tensor:
    """``max(⌈log2((2^b_x − 1) · (2^b_w − 1) · terms)⌉, bits of the range)``: the bits of a sum of ``terms`` products.

    A bound from bit widths, signs and shapes alone. The first is what Brevitas 0.13.4 gives. It is too small where an
    unsigned input meets signed weights that use their whole range: three products of 2 bits reach ``3 · 3 · −2 =
    −18``, which needs 6 bits and gets ``⌈log2(3 · 3 · 3)⌉ = 5``. There the range of the sum, ``terms`` times the
    extreme products, decides; it also counts with the zero-points, as the products are those of ``q − z``.

    Args:
        x: the input.
        weight: the weight.
        terms: how many products are added up for one output: ``in_features``, or ``in_channels / groups · kernel
            elements``.

    Returns:
        A 0-dim float32 tensor, without gradient. The sum is signed if either operand is, or has a zero-point. With a
        bias on the grid of the products, add one to the larger of this and the bit width of the bias.

    >>> grid = torch.tensor(1.0), torch.tensor(0.0), torch.tensor(8.0)
    >>> x, w = QuantTensor(torch.zeros(3), *grid, True), QuantTensor(torch.zeros(3), *grid, True, narrow_range=True)
    >>> accumulator_bit_width(x, w, terms=3)
    tensor(18.)
    """
    largest = [2.0 ** operand.bit_width.detach().to(torch.float64).reshape(()) - 1 for operand in (x, weight)]
    by_width = torch.ceil(torch.log2(largest[0] * largest[1] * terms)).to(torch.float32)
    low, high = products(x, weight)
    signed = x.signed or weight.signed or not (x.symmetric and weight.symmetric)
    return torch.maximum(by_width, bits(low * terms, high * terms, signed=signed))
