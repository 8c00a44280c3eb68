"""Weights at the scale of their largest value: the commonest quantizer, in one function with one gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from quant_core.native import is_plain, kernels


def quantize_by_largest(
    x: Tensor,
    *,
    per_channel: bool,
    minimum: float | None,
    low: float,
    high: float,
    divisor: float,
    rounding_mode: str,
) -> tuple[Tensor, Tensor] | None:
    """``(value, scale)`` with ``scale = max(max |x|, minimum) / divisor``, by the native kernels.

    The numbers are those of :func:`~quant_core.ops.magnitude.largest_magnitude`, :func:`~quant_core.ops.clamp_min_ste`, the
    division and :func:`~quant_core.ops.quantize_int` with ``clamp_gradient="pass"``, one after the other. Small weights
    spend most of their time between such functions.

    Args:
        x: float tensor of any shape; the channels are on its first axis.
        per_channel: a scale for each channel, of shape ``(C, 1, …)``, or one of shape ``()``.
        minimum: the smallest ``max |x|``; the gradient passes below it.
        low: the smallest integer.
        high: the largest integer.
        divisor: the integer that the largest value stands for.
        rounding_mode: one of :data:`~quant_core.ops.rounding.ROUNDING_MODES`.

    Returns:
        Tensors of ``x``'s shape and of the scale's; ``None`` where the kernels do not take ``x``, or no gradient is wanted.
    """
    if torch.compiler.is_compiling() or not (x.requires_grad and torch.is_grad_enabled()):
        return None
    library = kernels()
    if library is None or rounding_mode not in library.modes:
        return None
    if not is_plain(x) or not x.is_contiguous() or x.numel() == 0:
        return None
    value, scale = _ByLargest.apply(  # type: ignore[no-untyped-call]
        x, per_channel, minimum, (low, high), divisor, rounding_mode
    )
    return value, scale


class _ByLargest(torch.autograd.Function):
    """Nothing is kept: the weight is read again."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        per_channel: bool,
        minimum: float | None,
        bounds: tuple[float, float],
        divisor: float,
        rounding_mode: str,
    ) -> tuple[Tensor, Tensor]:
        library = kernels()
        assert library is not None
        channels = x.shape[0] if per_channel else 1
        largest = library.largest(x.view(channels, -1))
        threshold = largest if minimum is None else largest.clamp(min=minimum)
        scale = (threshold / divisor).view([channels] + [1] * (x.dim() - 1) if per_channel else [])
        ctx.grain = (1, channels, x.numel() // channels)
        ctx.options = bounds, rounding_mode
        ctx.divisor = divisor
        ctx.save_for_backward(x, scale, largest)
        ctx.set_materialize_grads(False)
        value, _ = library.quantize(x, scale, None, ctx.grain, bounds, rounding_mode, rectify=False, keep=False)
        return value, scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        library = kernels()
        assert library is not None
        x, scale, largest = ctx.saved_tensors
        of_value, of_scale = grads
        if of_value is not None:
            of_value = of_value.contiguous()
            through_value = library.gradient_of_scale(of_value, x, scale, None, ctx.grain, *ctx.options)
            of_scale = through_value if of_scale is None else through_value + of_scale.reshape(-1)
        if of_scale is None:
            return None, None, None, None, None, None
        of_largest = of_scale.reshape(-1) / ctx.divisor
        grad = library.gradient_of_largest(x.view(ctx.grain[1], -1), largest, of_largest).view(x.shape)
        return grad if of_value is None else grad.add_(of_value), None, None, None, None, None
