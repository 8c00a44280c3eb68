"""Dropping the low bits of an accumulator."""

from __future__ import annotations

import torch
from torch import Tensor

from quant_core.ops.integer import integer_range
from quant_core.ops.rounding import round_to_integer
from quant_core.ops.straight_through import round_ste, rounding_ste, straight_through, tensor_clamp


def quantize_trunc(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    output_scale: Tensor,
    output_bit_width: Tensor,
    *,
    signed: bool,
    narrow_range: bool = False,
    rounding_mode: str = "FLOOR",
) -> Tensor:
    """``(clamp(mode((round(x/scale) + zero_point) / 2^k), lo, hi) − zero_point) · output_scale``.

    ``2^k`` is the factor between the two scales: ``k = round(log2(output_scale/scale))``.

    ``x``: float tensor on the grid of ``scale`` (it is rounded onto it first); ``scale``, ``output_scale``: positive,
    broadcastable to it, a power of two apart; ``output_bit_width`` gives the range ``[lo, hi]``.

    Gradient: straight through rounding, to ``x``, both scales and so to a learned number of bits; where a value is clamped,
    to the end of the range in place of ``x``.

    >>> quantize_trunc(torch.tensor([3.0, -3.0]), torch.tensor(1.0), torch.tensor(0.0), torch.tensor(2.0),
    ...                torch.tensor(3.0), signed=True)
    tensor([ 2., -4.])
    """
    kinds = {"signed": signed, "narrow_range": narrow_range}
    if torch.compiler.is_exporting():
        captured: Tensor = torch.ops.quant.trunc(
            x, scale, zero_point, output_scale, output_bit_width, rounding_mode=rounding_mode, **kinds
        )
        return captured
    low, high = integer_range(output_bit_width, **kinds)
    exact = x.to(torch.float32) if x.dtype in (torch.float16, torch.bfloat16) else x
    ratio = output_scale / scale
    levels = (round_ste(exact / scale) + zero_point) / straight_through(ratio, _power_of_two(ratio))
    clamped = tensor_clamp(rounding_ste(levels, rounding_mode), low, high)
    return ((clamped - zero_point) * output_scale).to(x.dtype)


def fake_trunc(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    output_scale: Tensor,
    output_bit_width: Tensor,
    *,
    signed: bool,
    narrow_range: bool,
    rounding_mode: str,
) -> Tensor:
    """The forward formula of :func:`quantize_trunc` alone.

    >>> fake_trunc(torch.tensor([3.0]), torch.tensor(1.0), torch.tensor(0.0), torch.tensor(2.0), torch.tensor(3.0),
    ...            signed=True, narrow_range=False, rounding_mode="ROUND")
    tensor([4.])
    """
    low, high = integer_range(output_bit_width, signed=signed, narrow_range=narrow_range)
    levels = (torch.round(x / scale) + zero_point) / _power_of_two(output_scale / scale)
    clamped = round_to_integer(levels, rounding_mode).clamp(torch.as_tensor(low, dtype=x.dtype), high)
    return (clamped - zero_point) * output_scale


def _power_of_two(ratio: Tensor) -> Tensor:
    """``2^k``, the factor between the two grids, without the rounding errors of their scales."""
    return torch.exp2(torch.round(torch.log2(ratio.detach())))
