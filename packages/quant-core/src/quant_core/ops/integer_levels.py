"""The steps of integer fake quantization that its forward spellings share."""

from __future__ import annotations

import torch
from torch import Tensor

from quant_core.ops.rounding import round_to_integer


def compute_dtype(x: Tensor) -> torch.dtype:
    """Half precision cannot hold the integers of eight bits between the steps, so it is computed in float32."""
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype


def is_zero(zero_point: Tensor | float) -> bool:
    """Whether the zero-point is the number 0, which saves two passes over memory."""
    return not isinstance(zero_point, Tensor) and zero_point == 0


def exact_and_rounded(
    x: Tensor, scale: Tensor, zero_point: Tensor | float, rounding_mode: str, rectify: bool
) -> tuple[Tensor, Tensor]:
    """``x/scale + zero_point`` and the same rounded, before clamping."""
    exact = x.to(compute_dtype(x)) / scale
    if rectify:
        # Below zero a value is put far below the range: it is clamped to zero, and marked as clamped, so no gradient passes.
        exact = torch.threshold_(exact, 0.0, -4.0)
    if not is_zero(zero_point):
        exact = exact.add_(zero_point)
    return exact, round_to_integer(exact, rounding_mode)


def dequantize(levels: Tensor, scale: Tensor, zero_point: Tensor | float) -> Tensor:
    """``(levels − zero_point) · scale``, in place."""
    if not is_zero(zero_point):
        levels = levels.sub_(zero_point)
    return levels.mul_(scale)
