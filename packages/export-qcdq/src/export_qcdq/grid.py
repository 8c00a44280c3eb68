"""The grid of a quantizer as the file holds it: a scalar per tensor, a vector along one axis per channel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from quant_core.errors import UnsupportedError
from quant_core.export import Quantizer

_AXIS_WITHOUT_MEANING = 1  # the attribute's default, which a scalar scale leaves unread


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Scale and zero-point in one shape, ``()`` or ``(C,)``.

    Attributes:
        scale: float32.
        zero_point: whole numbers, in a float dtype.
        axis: the axis of the quantized tensor along which they vary.
    """

    scale: Tensor
    zero_point: Tensor
    axis: int


def grid(quantizer: Quantizer) -> Grid:
    """The grid of a quantizer.

    Raises:
        UnsupportedError: when the scale varies along one axis and the zero-point along another.
    """
    assert quantizer.scale is not None  # constant, as the check has found
    assert quantizer.zero_point is not None
    scale, zero_point = torch.broadcast_tensors(quantizer.scale.detach(), quantizer.zero_point.detach())
    varying = [axis for axis, size in enumerate(scale.shape) if size != 1]
    if len(varying) > 1:
        raise UnsupportedError(
            "target 'qcdq' cannot lower quant::int with a scale and a zero-point per channel of different axes",
            where=str(quantizer.where),
            why=f"both vary along one axis at most, the same for both, got shapes {tuple(quantizer.scale.shape)} and "
            f"{tuple(quantizer.zero_point.shape)}",
            fix="Give both the same shape, or one of them the shape ().",
        )
    shape = (-1,) if varying else ()
    return Grid(
        scale=scale.reshape(shape).to(torch.float32),
        zero_point=zero_point.reshape(shape),
        axis=varying[0] + len(quantizer.shape) - scale.dim() if varying else _AXIS_WITHOUT_MEANING,
    )
