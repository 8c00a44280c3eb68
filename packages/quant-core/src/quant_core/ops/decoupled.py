"""Integer fake quantization with one scale to divide by and another to multiply with, in few passes over memory.

As a chain of operations the gradient of a quotient costs five passes. Here the forward pass keeps the integers, and with them
both scales need one sum of products each.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from quant_core.ops.composed import quantize_composed
from quant_core.ops.integer import ClampGradient, integer_range
from quant_core.ops.integer_levels import compute_dtype
from quant_core.ops.rounding import round_to_integer
from quant_core.ops.straight_through import rounding_ste
from quant_core.tracing import is_composed


def quantize_decoupled(
    x: Tensor,
    pre_scale: Tensor,
    scale: Tensor,
    bit_width: Tensor | float,
    *,
    signed: bool,
    narrow_range: bool = False,
    rounding_mode: str = "ROUND",
    clamp_gradient: ClampGradient = "masked",
) -> Tensor:
    """``clamp(round(x/pre_scale), lo, hi) · scale``.

    Args:
        x: float tensor of any shape. Half precision is computed in float32 and rounded once at the end.
        pre_scale: positive, broadcastable to ``x``.
        scale: positive, broadcastable to ``x``.
        bit_width: 0-dim tensor, or a number when it is constant, which is cheaper.
        signed: two's complement range, or one that starts at zero.
        narrow_range: leave out one level.
        rounding_mode: one of :data:`~quant_core.ops.rounding.ROUNDING_MODES`.
        clamp_gradient: as in :func:`~quant_core.ops.quantize_int`.

    Gradient, with ``c`` the clamped integer and ``g`` the incoming one: ``g·c`` to ``scale``; where ``x`` is in range, and
    everywhere with ``"pass"``, ``h = g·scale/pre_scale`` to ``x`` and ``−h·x/pre_scale`` to ``pre_scale``. A bit width that
    learns gets its gradient as in :func:`~quant_core.ops.quantize_composed`.

    >>> quantize_decoupled(torch.tensor([0.3, 9.0]), torch.tensor(0.25), torch.tensor(2.0), 3, signed=True)
    tensor([2., 6.])
    """
    half = compute_dtype(x) != x.dtype
    if half or isinstance(bit_width, Tensor) or is_composed():  # the last is true for exports as well
        return quantize_composed(
            x,
            scale,
            0,
            bit_width,
            signed=signed,
            narrow_range=narrow_range,
            rounding=lambda levels: rounding_ste(levels, rounding_mode),
            clamp_gradient=clamp_gradient,
            pre_scale=pre_scale,
        )
    low, high = integer_range(bit_width, signed=signed, narrow_range=narrow_range)
    out: Tensor = _Decoupled.apply(  # type: ignore[no-untyped-call]
        x, pre_scale, scale, low, high, rounding_mode, clamp_gradient == "masked"
    )
    return out


class _Decoupled(torch.autograd.Function):
    """The fused forward and backward of :func:`quantize_decoupled`."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, pre_scale: Tensor, scale: Tensor, low: float, high: float, rounding_mode: str, masked: bool
    ) -> Tensor:
        rounded = round_to_integer(x / pre_scale, rounding_mode)
        integers = rounded.clamp(low, high)
        inside = (rounded == integers) if masked else None
        ctx.save_for_backward(x, pre_scale, scale, integers, inside)
        return integers * scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, pre_scale, scale, integers, inside = ctx.saved_tensors
        for_x, for_pre_scale, for_scale = ctx.needs_input_grad[:3]
        grad_x = grad_pre_scale = grad_scale = None
        if for_scale:
            grad_scale = (grads[0] * integers).sum_to_size(scale.shape)
        if for_x or for_pre_scale:
            grad_x = grads[0] * (scale / pre_scale)
            grad_x = grad_x if inside is None else grad_x.mul_(inside)
        if for_pre_scale:
            grad_pre_scale = (grad_x * x).sum_to_size(pre_scale.shape).div_(pre_scale).neg_()
        return grad_x if for_x else None, grad_pre_scale, grad_scale, None, None, None, None
