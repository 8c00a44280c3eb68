"""Weights at the scale of their largest value: the commonest quantizer, in one function with one gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from quant_core.native import is_plain, kernels
from quant_core.ops.second_order import is_recorded, rounding_errors, shares_of_largest
from quant_core.ops.threshold_grid import ThresholdGrid


def quantize_by_largest(x: Tensor, grid: ThresholdGrid, *, per_channel: bool) -> tuple[Tensor, Tensor] | None:
    """``(value, scale)`` at the threshold ``max |x|``, by the native kernels.

    The numbers are those of :func:`~quant_core.ops.magnitude.largest_magnitude`, :func:`~quant_core.ops.clamp_min_ste`, the
    division and :func:`~quant_core.ops.quantize_int` with ``clamp_gradient="pass"``, one after the other. Small weights
    spend most of their time between such functions.

    Args:
        x: float tensor of any shape; the channels are on its first axis.
        grid: what the threshold makes.
        per_channel: a scale for each channel, of shape ``(C, 1, …)``, or one of shape ``()``.

    Returns:
        Tensors of ``x``'s shape and of the scale's; ``None`` where the kernels do not take ``x``, or no gradient is wanted.
    """
    if torch.compiler.is_compiling() or not (x.requires_grad and torch.is_grad_enabled()):
        return None
    library = kernels()
    if library is None or grid.rounding_mode not in library.modes:
        return None
    if not is_plain(x) or not x.is_contiguous() or x.numel() == 0:
        return None
    value, scale = _ByLargest.apply(x, grid, per_channel)  # type: ignore[no-untyped-call]
    return value, scale


class _ByLargest(torch.autograd.Function):
    """Nothing is kept: the weight is read again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, grid: ThresholdGrid, per_channel: bool) -> tuple[Tensor, Tensor]:
        library = kernels()
        assert library is not None
        scale = x.new_empty([x.shape[0]] + [1] * (x.dim() - 1) if per_channel else [])
        value, most = library.by_largest(x, scale, *grid)
        ctx.options = grid[1:]
        ctx.save_for_backward(x, scale, most)
        ctx.set_materialize_grads(False)
        return value, scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        library = kernels()
        assert library is not None
        if is_recorded():
            of_value, of_scale = grads
            return _recorded(of_value, of_scale, *ctx.saved_tensors[:2], *ctx.options), None, None
        of_value, of_scale = (grad if grad is None else grad.contiguous() for grad in grads)
        grad = None
        if of_value is not None or of_scale is not None:
            grad = library.gradient_by_largest(of_value, of_scale, *ctx.saved_tensors, *ctx.options)
        return grad, None, None


def _recorded(
    of_value: Tensor | None,
    of_scale: Tensor | None,
    x: Tensor,
    scale: Tensor,
    bounds: tuple[float, float],
    divisor: float,
    rounding_mode: str,
) -> Tensor | None:
    """The same for a backward pass that is itself differentiated."""
    if of_value is not None:
        through_value = (of_value * rounding_errors(x, scale, 0, *bounds, rounding_mode)).sum_to_size(scale.shape)
        of_scale = through_value if of_scale is None else through_value + of_scale
    if of_scale is None:
        return None
    shares = shares_of_largest(x.reshape(scale.numel(), -1)).reshape(x.shape)
    through_scale = shares * (of_scale / divisor)
    return through_scale if of_value is None else of_value + through_scale
