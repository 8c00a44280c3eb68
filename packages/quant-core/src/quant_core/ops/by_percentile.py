"""Activations at a high percentile of their magnitudes: the commonest quantizer while it collects, in one function."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from quant_core.native import Grain, grain_of, kernels
from quant_core.ops.native_gradients import in_memory_order_of
from quant_core.ops.second_order import is_recorded, masked_gradients
from quant_core.ops.threshold_grid import ThresholdGrid


def quantize_by_percentile(
    x: Tensor, like: Tensor, grid: ThresholdGrid, *, nth: int, rectify: bool
) -> tuple[Tensor, Tensor, Tensor] | None:
    """``(value, scale, threshold)`` at the ``nth`` largest ``|x|``, by the native kernels.

    The threshold is no smaller than the smallest one. The numbers are those of the percentile, of
    :func:`~quant_core.ops.clamp_min_ste`, the division and :func:`~quant_core.ops.quantize_int` with
    ``clamp_gradient="masked"``, one after the other. The gradient of the scale goes to the element found; of equal ones the
    first is the largest.

    Args:
        x: float tensor of any shape.
        like: a tensor of one element, whose shape scale and threshold get.
        grid: what the threshold makes.
        nth: which one, from 1.
        rectify: quantize ``max(x, 0)``, whose percentile it is then.

    Returns:
        ``None`` where the kernels do not take the tensor, or do not search that far down. The threshold has no gradient.
    """
    if torch.compiler.is_compiling():
        return None
    library = kernels()
    if library is None or grid.rounding_mode not in library.modes or not 0 < nth <= min(library.most_ranked, x.numel()):
        return None
    grain = grain_of(x, like)
    if grain is None or like.numel() != 1:
        return None
    keep = x.requires_grad and torch.is_grad_enabled()
    options = _Options(like, nth, rectify, grain, keep)
    value, scale, threshold = _ByPercentile.apply(x, grid, options)  # type: ignore[no-untyped-call]
    return value, scale, threshold


class _Options(NamedTuple):
    like: Tensor
    nth: int
    rectify: bool
    grain: Grain
    keep: bool


class _ByPercentile(torch.autograd.Function):
    """Two bytes per element are kept. The gradient stops at the clamp, from where it reaches the element found."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, grid: ThresholdGrid, options: _Options) -> tuple[Tensor, Tensor, Tensor]:
        library = kernels()
        assert library is not None
        minimum, bounds, divisor, rounding_mode = grid
        like, nth, rectify, grain, keep = options
        threshold, scale = torch.empty_like(like), torch.empty_like(like)
        ctx.found = library.nth_largest(x, nth, threshold, scale, minimum, divisor, rectify=rectify)
        y, code = library.quantize(x, scale, None, grain, bounds, rounding_mode, rectify=rectify, keep=keep)
        if keep:
            ctx.save_for_backward(code)
        ctx.options = bounds, divisor, grain
        ctx.strides = y.stride()
        ctx.mark_non_differentiable(threshold)
        ctx.set_materialize_grads(False)
        return y, scale, threshold

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        library = kernels()
        assert library is not None
        (code,) = ctx.saved_tensors
        bounds, divisor, grain = ctx.options
        if code.stride() != ctx.strides:  # hooks of saved tensors may lay it out anew, and then the index is another
            code = torch.empty_strided(code.shape, ctx.strides, dtype=code.dtype).copy_(code)
        of_value, of_scale, _ = grads
        if is_recorded():
            return _recorded(of_value, of_scale, code, divisor, bounds, *ctx.found), None, None
        sums = None
        if of_value is not None:
            grad_x, sums = library.gradient(in_memory_order_of(code, of_value), code, None, grain, bounds)
        elif of_scale is not None:
            grad_x = torch.zeros_like(code, dtype=of_scale.dtype)
        else:
            return None, None, None
        index, element = ctx.found
        library.add_at_element(grad_x, index, element, sums, of_scale, divisor)
        return grad_x, None, None


def _recorded(
    of_value: Tensor | None,
    of_scale: Tensor | None,
    code: Tensor,
    divisor: float,
    bounds: tuple[float, float],
    index: int,
    element: float,
) -> Tensor | None:
    """The same for a backward pass that is itself differentiated."""
    grad_x = None
    if of_value is not None:
        grad_x, through_value, *_ = masked_gradients(of_value, code, of_value.new_empty(()), 0, *bounds)
        of_scale = through_value if of_scale is None else through_value + of_scale.reshape(())
    if of_scale is None:
        return None
    found = torch.zeros_like(code, dtype=of_scale.dtype)
    found.as_strided((found.numel(),), (1,))[index] = math.copysign(1.0, element) if element else 0.0
    through_scale = found * (of_scale / divisor)
    return through_scale if grad_x is None else grad_x + through_scale
