"""A zero-point that is learned from a given start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from quant_core.components.zero_point.given import numbers_of
from quant_core.components.zero_point.shifted import ShiftedZeroPoint
from quant_core.errors import ConfigurationError
from quant_core.ops import ClampGradient

_WHY: Final = "it is the magnitude of the real number that the lowest integer stands for"
_FIX: Final = "Start from the magnitude of the lowest value that you expect."


class ParameterZeroPoint(ShiftedZeroPoint):
    """A learned zero-point: the lowest integer stands for ``−|value|``, and ``value`` is a parameter.

    Formula and gradient are those of :class:`~quant_core.components.ShiftedZeroPoint`.

    Args:
        zero_point_init: where learning starts: the magnitude of the lowest real number, or a tensor of the scale's shape.
        signed: whether the integers can be negative.
        zero_point_shape: the shape to expand a number to.
        narrow_range: leave out one level.
        quantize_zero_point: whether to round and clamp.
        rounding_mode: how to round.
        clamp_gradient: the gradient of clamping.

    Raises:
        ConfigurationError: when the start holds no numbers, is not finite, or its shape does not fit.

    >>> zero_point = ParameterZeroPoint(1.0, signed=False)
    >>> zero_point(torch.ones(3), torch.tensor(0.125), torch.tensor(8.0)).item()
    8.0
    """

    def __init__(
        self,
        zero_point_init: float | Tensor,
        signed: bool,
        zero_point_shape: Sequence[int] | None = None,
        narrow_range: bool = False,
        quantize_zero_point: bool = True,
        rounding_mode: str = "ROUND",
        clamp_gradient: ClampGradient = "masked",
    ) -> None:
        super().__init__(signed, narrow_range, quantize_zero_point, rounding_mode, clamp_gradient)
        self.value = nn.Parameter(_initial(zero_point_init, zero_point_shape))

    @property
    def reads_input(self) -> bool:
        """Never."""
        return False

    def forward(self, x: Tensor, scale: Tensor, bit_width: Tensor) -> Tensor:
        """The learned zero-point."""
        return self.from_lowest(self.value, scale, bit_width)


def _initial(zero_point_init: float | Tensor, shape: Sequence[int] | None) -> Tensor:
    init = numbers_of(zero_point_init, why=_WHY, fix=_FIX)
    if not init.is_meta and not bool(torch.isfinite(init).all()):
        raise ConfigurationError(
            f"zero_point_init={zero_point_init!r} is not finite",
            why=_WHY,
            fix=_FIX,
        )
    if shape is None or init.shape == tuple(shape):
        return init
    if init.dim() > 0:
        raise ConfigurationError(
            f"zero_point_init of shape {tuple(init.shape)} does not fit zero_point_shape={tuple(shape)}",
            why="a tensor must have the shape of the zero-point",
            fix="Reshape zero_point_init, or leave zero_point_shape out.",
        )
    return init.expand(tuple(shape)).clone()
