"""The grid of a quantizer in integers of 8 bits: signed ones are carried as unsigned ones by a shift of 128, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from quant_core.export import Quantizer
from quant_core.export.ranges import bounds

SHIFT: Final = 128
UINT8: Final = (0, 255)
INT8: Final = (-128, 127)


@dataclass(frozen=True, kw_only=True)
class Levels:
    """The levels ``(q − zero_point) · scale`` for ``q`` from ``low`` to ``high``.

    Attributes:
        scale: the distance of two levels.
        zero_point: the integer that stands for 0.
        low: the smallest integer.
        high: the largest integer.
    """

    scale: float
    zero_point: int
    low: int
    high: int

    def shifted(self, by: int) -> Levels:
        """The same levels, with every integer moved.

        >>> Levels(scale=0.5, zero_point=0, low=-8, high=7).shifted(128)
        Levels(scale=0.5, zero_point=128, low=120, high=135)
        """
        return Levels(scale=self.scale, zero_point=self.zero_point + by, low=self.low + by, high=self.high + by)


def levels(quantizer: Quantizer) -> Levels:
    """The levels of an activation quantizer of one constant scale, as it counts them."""
    assert quantizer.scale is not None  # constant and one, as the check has found
    assert quantizer.zero_point is not None
    low, high = bounds(quantizer)
    return Levels(scale=float(quantizer.scale), zero_point=int(quantizer.zero_point), low=low, high=high)


def unsigned_levels(quantizer: Quantizer) -> Levels:
    """The same levels from 0 to 255: those of a signed quantizer are shifted by 128, which changes no value."""
    return levels(quantizer).shifted(SHIFT if quantizer.signed else 0)


def signed_levels(quantizer: Quantizer) -> Levels:
    """The same levels from −128 to 127: those of an unsigned quantizer are shifted by −128, which changes no value."""
    return levels(quantizer).shifted(0 if quantizer.signed else -SHIFT)


@dataclass(frozen=True, kw_only=True)
class Weight:
    """Stored integers of 8 bits with their grid.

    Attributes:
        integers: int8.
        scale: float32, one number or ``(C,)``.
        zero_point: int64, of the shape of the scale.
        axis: the axis of the channels; ``None`` for one scale.
    """

    integers: Tensor
    scale: Tensor
    zero_point: Tensor
    axis: int | None

    @property
    def is_symmetric(self) -> bool:
        """Whether 0 is stored as 0 everywhere."""
        return not bool(torch.any(self.zero_point))

    def quantized(self) -> Tensor:
        """A quantized tensor of torch, qint8."""
        if self.axis is None:
            scale, zero_point = float(self.scale), int(self.zero_point)
            return torch._make_per_tensor_quantized_tensor(self.integers, scale, zero_point)
        return torch._make_per_channel_quantized_tensor(
            self.integers, self.scale.to(torch.float64), self.zero_point, self.axis
        )


def weight_of(quantizer: Quantizer) -> Weight | None:
    """The integers of a quantized weight as int8; ``None`` where scale and zero-point vary along more than one axis."""
    integers, scale, zero_point = quantizer.integers, quantizer.scale, quantizer.zero_point
    assert integers is not None
    assert scale is not None
    assert zero_point is not None
    scale, zero_point = torch.broadcast_tensors(scale.detach(), zero_point.detach())
    varying = [axis - scale.dim() + integers.dim() for axis, size in enumerate(scale.shape) if size != 1]
    if len(varying) > 1:
        return None
    by, shape = 0 if quantizer.signed else SHIFT, (-1,) if varying else ()
    return Weight(
        integers=(integers.to(torch.int16) - by).to(torch.int8),
        scale=scale.reshape(shape).to(torch.float32),
        zero_point=(zero_point - by).reshape(shape).to(torch.int64),
        axis=varying[0] if varying else None,
    )
