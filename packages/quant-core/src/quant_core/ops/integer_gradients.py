"""The hand-written gradients of integer fake quantization: fast, and two bytes per element.

A chain of tensor operations keeps about ten bytes per element for the backward pass. All that the gradients need is one small
number per element, which is kept in float16 (float64 for float64 input). Forward and backward are each a handful of vectorised
passes over memory, with as few temporaries as possible: on a CPU the time goes into memory traffic and, for large tensors, into
fresh pages. There is no ``where``, no boolean mask and no comparison; ``hardtanh_backward`` masks in one pass.

Three functions, from the special to the general:

- :class:`_FixedRange`: constant range, zero-point 0, rounding to nearest. Keeps ``∂y/∂s`` itself: the rounding error
  ``q − v`` in range, the bound where clamped; elements in range are those with ``|∂y/∂s| ≤ ½``.
- :class:`_PassThrough`: the gradient of the clamp passes. Keeps ``c − v``.
- :class:`_AnyRange`: learned ranges, zero-points and every rounding mode. Keeps ``v − c`` in range and ``±2`` where clamped.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from quant_core.ops.integer_levels import compute_dtype, dequantize, exact_and_rounded, is_zero
from quant_core.ops.second_order import is_recorded
from quant_core.ops.straight_through import clamp

_LARGEST_HALF = 65504.0
_LARGEST_EXACT_HALF = 2048.0

_IN_RANGE = 0.75
"""Between the largest rounding error, ½, and the smallest bound of a range, 1."""

_CLIPPED = 2.0
_MARKED = 1.5
"""Between the largest residual in range, which is below 1, and the mark of a clamped element."""

_BELOW = 1.0
"""What an element below an unsigned range counts as, so that its code is −1 instead of a bound of 0."""


def quantize_with_gradient(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | float,
    low: Tensor | float,
    high: Tensor | float,
    rounding_mode: str,
    *,
    masked: bool,
    rectify: bool,
) -> Tensor:
    """The value of :func:`quant_core.ops.quantize_int` for a given integer range, with its gradients."""
    out: Tensor
    if not masked:
        out = _PassThrough.apply(x, scale, zero_point, low, high, rounding_mode)  # type: ignore[no-untyped-call]
    elif rounding_mode == "ROUND" and _is_short(low, high) and is_zero(zero_point):
        out = _FixedRange.apply(x, scale, low, high, rectify)  # type: ignore[no-untyped-call]
    else:
        out = _AnyRange.apply(x, scale, zero_point, low, high, rounding_mode, rectify)  # type: ignore[no-untyped-call]
    return out


def _is_short(low: Tensor | float, high: Tensor | float) -> bool:
    """Whether the range is made of numbers that float16 holds exactly, and has a level besides 0 and 1."""
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        return False
    return low >= -_LARGEST_EXACT_HALF and 1.0 <= high <= _LARGEST_EXACT_HALF and high - low >= 2.0


class _FixedRange(torch.autograd.Function):
    """``clamp(round(x / scale), low, high) · scale``, of ``max(x, 0)`` where ``rectify`` is set."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: float, high: float, rectify: bool) -> Tensor:
        exact = x.to(compute_dtype(x)) / scale
        out = exact.clamp(low, high).round_()
        lowest, highest = _edges(low, high, exact.dtype)
        if low == 0.0:
            exact = torch.threshold_(exact, 0.0 if rectify else lowest, _BELOW)
            lowest = -_BELOW
        # Masking and subtracting in place gives q − v in range, the bound above and below, and −1 below an unsigned range.
        kept = torch.ops.aten.hardtanh_backward.grad_input(exact, exact, lowest, highest, grad_input=exact)
        code = torch.sub(out, kept, out=kept)
        ctx.save_for_backward(code if x.dtype == torch.float64 else code.to(torch.float16))
        ctx.unsigned = low == 0.0
        ctx.scale_shape = scale.shape
        return out.mul_(scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (code,) = ctx.saved_tensors
        g = grads[0].to(compute_dtype(grads[0]))
        code = code.to(g.dtype, copy=True)  # it becomes the gradient of x
        if ctx.unsigned:
            g = torch.ops.aten.threshold_backward(g, code, -_IN_RANGE)
        grad_scale = _sum_of_products(g, code, ctx.scale_shape) if ctx.needs_input_grad[1] else None
        if is_recorded():
            grad_x = torch.ops.aten.hardtanh_backward(g, code, -_IN_RANGE, _IN_RANGE)
        else:
            grad_x = torch.ops.aten.hardtanh_backward.grad_input(g, code, -_IN_RANGE, _IN_RANGE, grad_input=code)
        return grad_x.to(grads[0].dtype), grad_scale, None, None, None


@functools.cache
def _edges(low: float, high: float, dtype: torch.dtype) -> tuple[float, float]:
    """The open interval of what rounds to a level: ``low − ½`` to ``high + ½``, a step wider where the tie rounds inwards."""
    edges = torch.tensor([low - 0.5, high + 0.5], dtype=dtype)
    wider = torch.nextafter(edges, torch.tensor([-torch.inf, torch.inf], dtype=dtype))
    lower, upper = torch.where(edges.round() == torch.tensor([low, high], dtype=dtype), wider, edges).tolist()
    return lower, upper


class _PassThrough(torch.autograd.Function):
    """The gradient of ``x`` passes the clamp, and the range learns nothing."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        zero_point: Tensor | float,
        low: Tensor | float,
        high: Tensor | float,
        rounding_mode: str,
    ) -> Tensor:
        exact, rounded = exact_and_rounded(x, scale, zero_point, rounding_mode, False)
        out = clamp(rounded, low, high)
        residual = torch.sub(out, exact, out=exact)
        if x.dtype != torch.float64:
            residual = residual.clamp_(-_LARGEST_HALF, _LARGEST_HALF).to(torch.float16)
        ctx.save_for_backward(residual)
        ctx.scale_shape = scale.shape
        return dequantize(out, scale, zero_point).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_scale = None
        if ctx.needs_input_grad[1]:
            g = grads[0].to(compute_dtype(grads[0]))
            grad_scale = _sum_of_products(g, ctx.saved_tensors[0].to(g.dtype), ctx.scale_shape)
        return grads[0], grad_scale, None, None, None, None


class _AnyRange(torch.autograd.Function):
    """The gradient stops at the clamp, from where it reaches range, zero-point and scale."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        zero_point: Tensor | float,
        low: Tensor | float,
        high: Tensor | float,
        rounding_mode: str,
        rectify: bool,
    ) -> Tensor:
        exact, rounded = exact_and_rounded(x, scale, zero_point, rounding_mode, rectify)
        clamped = clamp(rounded, low, high)
        residual = exact.sub_(clamped).add_(rounded.sub_(clamped), alpha=3.0).clamp_(-_CLIPPED, _CLIPPED)
        code = residual.to(torch.float64 if x.dtype == torch.float64 else torch.float16)
        ctx.save_for_backward(code, scale, *(t for t in (zero_point, low, high) if isinstance(t, Tensor)))
        ctx.numbers = [None if isinstance(t, Tensor) else t for t in (zero_point, low, high)]
        return dequantize(clamped, scale, zero_point).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad = grads[0]
        code, scale, *tensors = ctx.saved_tensors
        zero_point, low, high = (tensors.pop(0) if number is None else number for number in ctx.numbers)
        _, for_scale, for_zero_point, for_low, for_high = ctx.needs_input_grad[:5]
        g = grad.to(compute_dtype(grad))
        residual = code.to(g.dtype)
        inside = torch.ops.aten.hardtanh_backward(g, residual, -_MARKED, _MARKED)
        grad_x = inside.to(grad.dtype)
        if not (for_scale or for_zero_point or for_low or for_high):
            return grad_x, None, None, None, None, None, None
        grain = torch.broadcast_shapes(scale.shape, zero_point.shape if isinstance(zero_point, Tensor) else ())
        # The code is +2 above the range and −2 below it, so that two sums over what was clamped tell the two ends apart.
        rounding = _sum_of_products(inside, residual, grain)
        signed = (_sum_of_products(g, residual, grain) - rounding) / _CLIPPED
        total = _sum_to(g, grain) - _sum_to(inside, grain)
        at_high, at_low = (total + signed) * 0.5, (total - signed) * 0.5
        grad_scale = grad_zero_point = grad_low = grad_high = None
        if for_scale:
            clipping = (high - zero_point) * at_high + (low - zero_point) * at_low
            grad_scale = _sum_to(clipping - rounding, scale.shape)
        if for_zero_point:
            grad_zero_point = _sum_to(total * scale, zero_point.shape).neg()
        if for_low:
            grad_low = _sum_to(at_low * scale, low.shape)
        if for_high:
            grad_high = _sum_to(at_high * scale, high.shape)
        return grad_x, grad_scale, grad_zero_point, grad_low, grad_high, None, None


def _sum_of_products(x: Tensor, y: Tensor, shape: torch.Size) -> Tensor:
    """``Σ x·y`` over the axes along which a tensor of that shape is broadcast; one pass over memory where it is a number."""
    if len(shape) == 0:
        if x.is_contiguous() and y.is_contiguous():
            return torch.dot(x.view(-1), y.view(-1))
        if all(t.dim() == 4 and t.is_contiguous(memory_format=torch.channels_last) for t in (x, y)):
            return torch.dot(*(t.permute(0, 2, 3, 1).reshape(-1) for t in (x, y)))
    return _sum_to(x * y, shape)


def _sum_to(x: Tensor, shape: torch.Size) -> Tensor:
    """The sum of ``x`` over the axes along which a tensor of that shape is broadcast; a plain sum is the faster kernel."""
    return x.sum() if len(shape) == 0 else x.sum_to_size(shape)
