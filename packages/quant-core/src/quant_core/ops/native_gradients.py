"""Integer fake quantization and its gradients by the native kernels, for the tensors that they take."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from quant_core.native import Grain, grain_of, kernels
from quant_core.ops.second_order import is_recorded, masked_gradients, rounding_errors


def quantize_natively(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | float,
    low: Tensor | float,
    high: Tensor | float,
    rounding_mode: str,
    *,
    masked: bool,
    rectify: bool,
    differentiable: bool,
) -> Tensor | None:
    """The value of :func:`quant_core.ops.quantize_int` for a given integer range; ``None`` where the kernels do not apply.

    Args:
        differentiable: whether a gradient may be asked for.
    """
    library = kernels()
    if library is None or rounding_mode not in library.modes:
        return None
    grain = grain_of(x, scale)
    if grain is None or not _goes_with(zero_point, scale):
        return None
    out: Tensor
    if not differentiable:
        bounds = float(low), float(high)
        out, _ = library.quantize(
            x, scale, _tensor(zero_point), grain, bounds, rounding_mode, rectify=rectify, keep=False
        )
    elif masked:
        out = _Masked.apply(x, scale, zero_point, low, high, rounding_mode, rectify, grain)  # type: ignore[no-untyped-call]
    else:
        out = _PassThrough.apply(x, scale, zero_point, low, high, rounding_mode, grain)  # type: ignore[no-untyped-call]
    return out


def _goes_with(zero_point: Tensor | float, scale: Tensor) -> bool:
    """Whether there is one zero-point for each scale."""
    if not isinstance(zero_point, Tensor):
        return zero_point == 0
    if zero_point.numel() != scale.numel() or zero_point.dtype != scale.dtype:
        return False
    return grain_of(zero_point, zero_point.reshape(-1)[0]) is not None and zero_point.is_contiguous()


def _tensor(zero_point: Tensor | float) -> Tensor | None:
    return zero_point if isinstance(zero_point, Tensor) else None


class _Masked(torch.autograd.Function):
    """The gradient stops at the clamp, from where it reaches range, zero-point and scale. Two bytes per element are kept."""

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
        grain: Grain,
    ) -> Tensor:
        library = kernels()
        assert library is not None
        bounds = float(low), float(high)
        y, code = library.quantize(
            x, scale, _tensor(zero_point), grain, bounds, rounding_mode, rectify=rectify, keep=True
        )
        ctx.save_for_backward(code, scale, *(t for t in (zero_point, low, high) if isinstance(t, Tensor)))
        ctx.numbers = [None if isinstance(t, Tensor) else t for t in (zero_point, low, high)]
        ctx.grain, ctx.bounds = grain, bounds
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        library = kernels()
        assert library is not None
        code, scale, *tensors = ctx.saved_tensors
        zero_point, low, high = (tensors.pop(0) if number is None else number for number in ctx.numbers)
        if is_recorded():
            return *masked_gradients(grads[0], code, scale, zero_point, low, high), None, None, None
        _, for_scale, for_zero_point, for_low, for_high = ctx.needs_input_grad[:5]
        g = in_memory_order_of(code, grads[0])
        grad_x, (of_scale, above, below) = library.gradient(g, code, _tensor(zero_point), ctx.grain, ctx.bounds)
        grad_scale = of_scale.view(scale.shape) if for_scale else None
        grad_zero_point = grad_low = grad_high = None
        if for_zero_point:
            grad_zero_point = (above + below).mul_(scale.reshape(-1)).neg_().view(zero_point.shape)
        if for_low:
            grad_low = torch.dot(below, scale.reshape(-1)).view(low.shape)
        if for_high:
            grad_high = torch.dot(above, scale.reshape(-1)).view(high.shape)
        return grad_x, grad_scale, grad_zero_point, grad_low, grad_high, None, None, None


class _PassThrough(torch.autograd.Function):
    """The gradient of ``x`` passes the clamp, and the range learns nothing. Nothing is kept: ``x`` is read again."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        zero_point: Tensor | float,
        low: Tensor | float,
        high: Tensor | float,
        rounding_mode: str,
        grain: Grain,
    ) -> Tensor:
        library = kernels()
        assert library is not None
        ctx.save_for_backward(x, scale, *(t for t in (zero_point,) if isinstance(t, Tensor)))
        ctx.grain, ctx.bounds, ctx.rounding_mode = grain, (float(low), float(high)), rounding_mode
        y, _ = library.quantize(
            x, scale, _tensor(zero_point), grain, ctx.bounds, rounding_mode, rectify=False, keep=False
        )
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_scale = None
        if ctx.needs_input_grad[1]:
            library = kernels()
            assert library is not None
            x, scale, *rest = ctx.saved_tensors
            zero_point = rest[0] if rest else None
            if is_recorded():
                low, high = ctx.bounds
                shift = 0 if zero_point is None else zero_point
                errors = rounding_errors(x, scale, shift, low, high, ctx.rounding_mode)
                return grads[0], (grads[0] * errors).sum_to_size(scale.shape), None, None, None, None, None
            grad_scale = library.gradient_of_scale(
                in_memory_order_of(x, grads[0]), x, scale, zero_point, ctx.grain, ctx.bounds, ctx.rounding_mode
            ).view(scale.shape)
        return grads[0], grad_scale, None, None, None, None, None


def in_memory_order_of(x: Tensor, g: Tensor) -> Tensor:
    """``g``, which has the shape of ``x``, with the strides of ``x`` as well.

    >>> in_memory_order_of(torch.ones(3, 2).t(), torch.ones(2, 3)).stride()
    (1, 2)
    """
    return g if g.stride() == x.stride() else torch.empty_like(x, dtype=g.dtype).copy_(g)
