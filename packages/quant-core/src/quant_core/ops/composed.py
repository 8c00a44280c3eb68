"""Integer fake quantization out of plain operations, for what the fused one does not do.

That is: rounding by a function of one's own, a range that is no whole number of bits, and a grid that the value is put on which
differs from the one that it is divided by.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from quant_core.ops.integer import ClampGradient, integer_range
from quant_core.ops.integer_levels import compute_dtype, is_zero
from quant_core.ops.straight_through import clamp_ste, round_ste, tensor_clamp


def quantize_composed(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | float,
    bit_width: Tensor | float,
    *,
    signed: bool,
    narrow_range: bool = False,
    rounding: Callable[[Tensor], Tensor] = round_ste,
    clamp_gradient: ClampGradient = "masked",
    pre_scale: Tensor | None = None,
    pre_zero_point: Tensor | float | None = None,
) -> Tensor:
    """``(clamp(rounding(x/pre_scale + pre_zero_point), lo, hi) − zero_point) · scale``.

    Args:
        x: float tensor of any shape. Half precision is computed in float32 and rounded once at the end.
        scale: positive, broadcastable to ``x``.
        zero_point: integer-valued, broadcastable to ``x``.
        bit_width: number of bits; gives the range ``[lo, hi]``, whose ends are fractions where it is one.
        signed: two's complement range, or one that starts at zero.
        narrow_range: leave out one level.
        rounding: a function of one tensor that rounds and says what its gradient is.
        clamp_gradient: as in :func:`~quant_core.ops.quantize_int`.
        pre_scale: what to divide by; ``scale`` by default.
        pre_zero_point: what to add; ``zero_point`` by default.

    Gradient: that of each operation, through ``rounding`` as it defines it; to the ends of the range, and so to a learned
    bit width, where ``clamp_gradient`` is ``"masked"``.

    Under ``torch.export`` the result goes through ``quant::int`` on its own grid, which leaves it as it is: a target sees an
    ordinary quantizer, and what depends on parameters only is folded to integers.

    >>> quantize_composed(torch.tensor([0.3, 9.0]), torch.tensor(2.0), 0, 3, signed=True, pre_scale=torch.tensor(0.25))
    tensor([2., 6.])
    """
    dtype = x.dtype
    x = _as(compute_dtype(x), x)
    low, high = integer_range(bit_width, signed=signed, narrow_range=narrow_range)
    shift = zero_point if pre_zero_point is None else pre_zero_point
    levels = x / (scale if pre_scale is None else pre_scale)
    rounded = rounding(levels if is_zero(shift) else levels + shift)
    clamped = tensor_clamp(rounded, low, high) if clamp_gradient == "masked" else clamp_ste(rounded, low, high)
    value = _as(dtype, (clamped if is_zero(zero_point) else clamped - zero_point) * scale)
    if torch.compiler.is_exporting():
        grid = [torch.as_tensor(part, dtype=scale.dtype, device=scale.device) for part in (zero_point, bit_width)]
        captured: Tensor = torch.ops.quant.int(
            value, scale, *grid, signed=signed, narrow_range=narrow_range, rounding_mode="ROUND"
        )
        return captured
    return value


def _as(dtype: torch.dtype, x: Tensor) -> Tensor:
    """A conversion to the same dtype would stand in captured graphs, and keep a weight from being folded to integers."""
    return x if x.dtype == dtype else x.to(dtype)
