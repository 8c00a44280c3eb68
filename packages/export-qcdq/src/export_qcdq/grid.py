"""The grid of a quantizer as the file holds it: a scalar per tensor, a vector along one axis, or a scale for each block.

And the type of its integers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from quant_core.errors import UnsupportedError
from quant_core.export import Quantizer
from quant_core.export.ranges import bounds

_AXIS_WITHOUT_MEANING = 1  # the attribute's default, which a scalar scale leaves unread


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Scale and zero-point in one shape: ``()``, ``(C,)``, or that of the tensor divided by the size of a block along the axis.

    Attributes:
        scale: float32.
        zero_point: whole numbers, in a float dtype.
        axis: the axis of the quantized tensor along which they vary.
        block: how many neighbours along the axis share a scale; 0 where it is not blocks that do.
    """

    scale: Tensor
    zero_point: Tensor
    axis: int
    block: int = 0


def grid(quantizer: Quantizer) -> Grid:
    """The grid of a quantizer.

    Raises:
        UnsupportedError: when the scale varies along one axis and the zero-point of an activation along another.
    """
    assert quantizer.scale is not None  # constant, as the check has found
    assert quantizer.zero_point is not None
    scale, zero_point = torch.broadcast_tensors(quantizer.scale.detach(), quantizer.zero_point.detach())
    varying = [axis for axis, size in enumerate(scale.shape) if size != 1]
    if len(varying) > 1 and quantizer.granularity == "per_group":
        return blocks(quantizer)
    if len(varying) > 1:
        raise UnsupportedError(
            "standard ONNX cannot hold quant::int with a scale and a zero-point per channel of different axes",
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


def kind_of(quantizer: Quantizer) -> torch.dtype:
    """The smallest integer type that holds the range of a quantizer and its zero-point."""
    low, high = bounds(quantizer)
    signed = quantizer.signed or quantizer.op in ("quant::binary", "quant::ternary")
    kinds = (torch.int8, torch.int16) if signed else (torch.uint8, torch.uint16)
    return next(kind for kind in kinds if torch.iinfo(kind).min <= low and high <= torch.iinfo(kind).max)


def blocks(quantizer: Quantizer) -> Grid:
    """The grid of a quantizer whose scale is that of groups: one for each block of neighbours along the axis with the longest.

    Both are given for each element, and are the same for all elements of a block.
    """
    assert quantizer.scale is not None
    assert quantizer.zero_point is not None
    scale, zero_point = (tensor.detach().expand(quantizer.shape) for tensor in (quantizer.scale, quantizer.zero_point))
    sizes = {axis: _block(scale, zero_point, axis) for axis in range(scale.dim())}
    axis = max(sizes, key=lambda one: sizes[one] if sizes[one] < scale.shape[one] else 0)
    firsts = torch.arange(0, scale.shape[axis], sizes[axis])
    return Grid(
        scale=scale.index_select(axis, firsts).to(torch.float32).contiguous(),
        zero_point=zero_point.index_select(axis, firsts).contiguous(),
        axis=axis,
        block=sizes[axis],
    )


def _block(scale: Tensor, zero_point: Tensor, axis: int) -> int:
    """The largest number of neighbours along an axis that share scale and zero-point throughout."""
    size = scale.shape[axis]
    for block in (count for count in range(size, 1, -1) if size % count == 0):
        groups = (tensor.unflatten(axis, (-1, block)) for tensor in (scale, zero_point))
        if all(bool((group == group.narrow(axis + 1, 0, 1)).all()) for group in groups):
            return block
    return 1
