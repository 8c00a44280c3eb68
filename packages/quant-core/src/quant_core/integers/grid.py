"""The grid of a quantizer that is constant, as the lowering takes it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from quant_core.export.quantizer import Quantizer


def grid_of(quantizer: Quantizer) -> tuple[Tensor, Tensor]:
    """Scale and zero-point; one number where all zero-points are equal."""
    scale, zero_point = quantizer.scale, quantizer.zero_point
    assert scale is not None  # constant, as was checked
    assert zero_point is not None
    if zero_point.numel() > 1 and not bool(torch.any(zero_point != zero_point.flatten()[0])):
        zero_point = zero_point.flatten()[0]
    return scale.detach(), zero_point.detach()


def bits_of(quantizer: Quantizer) -> dict[str, Any]:
    """What a description says of the integers of a quantizer."""
    assert quantizer.bit_width is not None
    return {"bits": int(quantizer.bit_width), "signed": quantizer.signed}


def axis_of(quantizer: Quantizer) -> int | None:
    """The axis of the channels, counted from the end."""
    return None if quantizer.axis is None else quantizer.axis - len(quantizer.shape)
