"""From the real number that the lowest integer stands for to the zero-point."""

from __future__ import annotations

from torch import Tensor

from quant_core.components.zero_point.base import ZeroPoint
from quant_core.errors import ConfigurationError
from quant_core.ops import (
    ClampGradient,
    abs_binary_sign_grad,
    clamp_ste,
    integer_range,
    rounding_ste,
    tensor_clamp,
)
from quant_core.ops.rounding import check_rounding_mode


class ShiftedZeroPoint(ZeroPoint):
    """Base of the zero-points that put the lowest integer on a real number ``v ≤ 0``: subclasses say where ``v`` comes from.

    ``zero_point = clamp(round(|v|/scale + lo), lo, hi)``, or ``|v|/scale + lo`` where it is not quantized; ``lo … hi`` is the
    integer range. A quantized zero-point is one of the integers, so that the real number 0 is a level.

    Gradient: straight through the rounding; where the zero-point is clamped it stops (``"masked"``) or passes (``"pass"``).
    ``|v|`` has the gradient ``+1`` at 0.

    Args:
        signed: whether the integers can be negative.
        narrow_range: leave out one level.
        quantize_zero_point: whether to round and clamp.
        rounding_mode: how to round.
        clamp_gradient: the gradient of clamping.

    Raises:
        ConfigurationError: when ``quantize_zero_point`` is not a bool, or the rounding mode is unknown.
    """

    def __init__(
        self,
        signed: bool,
        narrow_range: bool = False,
        quantize_zero_point: bool = True,
        rounding_mode: str = "ROUND",
        clamp_gradient: ClampGradient = "masked",
    ) -> None:
        super().__init__()
        if not isinstance(quantize_zero_point, bool):
            raise ConfigurationError(
                f"quantize_zero_point={quantize_zero_point!r} is neither True nor False",
                why="a quantized zero-point is an integer, so that the number 0 is a level",
                fix="Set quantize_zero_point to True or False.",
            )
        self.signed = signed
        self.narrow_range = narrow_range
        self.quantize_zero_point = quantize_zero_point
        self.rounding_mode = check_rounding_mode(rounding_mode)
        self.clamp_gradient: ClampGradient = clamp_gradient
        self.zero_on_grid = quantize_zero_point

    def from_lowest(self, lowest: Tensor, scale: Tensor, bit_width: Tensor) -> Tensor:
        """The zero-point at which the lowest integer stands for ``−|lowest|``; the shapes are those of the scale."""
        low, high = integer_range(bit_width, signed=self.signed, narrow_range=self.narrow_range)
        shift: Tensor = abs_binary_sign_grad(lowest) / scale + low
        if not self.quantize_zero_point:
            return shift
        rounded = rounding_ste(shift, self.rounding_mode)
        return tensor_clamp(rounded, low, high) if self.clamp_gradient == "masked" else clamp_ste(rounded, low, high)

    def extra_repr(self) -> str:
        """Whether it is quantized."""
        return f"quantize_zero_point={self.quantize_zero_point}"
