"""Activations at a learned threshold: the commonest quantizer of activations, in one function with one gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from quant_core.native import Grain, grain_of, kernels
from quant_core.ops.native_gradients import in_memory_order_of
from quant_core.ops.second_order import is_recorded, masked_gradients
from quant_core.ops.straight_through import binary_sign
from quant_core.ops.threshold_grid import ThresholdGrid


def quantize_by_threshold(
    x: Tensor, parameter: Tensor, grid: ThresholdGrid, *, rectify: bool
) -> tuple[Tensor, Tensor] | None:
    """``(value, scale)`` at the threshold ``|parameter|``, by the native kernels.

    The numbers are those of :func:`~quant_core.ops.magnitude_at_least`, the division and
    :func:`~quant_core.ops.quantize_int` with ``clamp_gradient="masked"``, one after the other.

    Args:
        x: float tensor of any shape.
        parameter: broadcastable to it: one element, or one for each channel.
        grid: what the threshold makes.
        rectify: quantize ``max(x, 0)``.

    Returns:
        Tensors of ``x``'s and of the parameter's shape; ``None`` where the kernels do not take the two, or no gradient is wanted.
    """
    if torch.compiler.is_compiling() or not (parameter.requires_grad and torch.is_grad_enabled()):
        return None
    library = kernels()
    if library is None or grid.rounding_mode not in library.modes:
        return None
    grain = grain_of(x, parameter)
    if grain is None or x.numel() == 0:
        return None
    value, scale = _ByThreshold.apply(x, parameter, grid, grain, rectify)  # type: ignore[no-untyped-call]
    return value, scale


class _ByThreshold(torch.autograd.Function):
    """Two bytes per element are kept. The gradient stops at the clamp, from where it reaches the threshold."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, parameter: Tensor, grid: ThresholdGrid, grain: Grain, rectify: bool
    ) -> tuple[Tensor, Tensor]:
        library = kernels()
        assert library is not None
        y, scale, code = library.by_threshold(x, parameter, grain, *grid, rectify=rectify)
        ctx.save_for_backward(code, parameter)
        ctx.options = grain, grid.divisor, grid.bounds
        ctx.set_materialize_grads(False)
        return y, scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        library = kernels()
        assert library is not None
        code, parameter = ctx.saved_tensors
        of_value, of_scale = grads
        if is_recorded():
            return *_recorded(of_value, of_scale, code, parameter, *ctx.options[1:]), None, None, None
        if of_value is not None:
            of_value = in_memory_order_of(code, of_value)
        elif of_scale is None:
            return None, None, None, None, None
        if of_scale is not None:
            of_scale = of_scale.contiguous()
        return *library.gradient_by_threshold(of_value, of_scale, code, parameter, *ctx.options), None, None, None


def _recorded(
    of_value: Tensor | None,
    of_scale: Tensor | None,
    code: Tensor,
    parameter: Tensor,
    divisor: float,
    bounds: tuple[float, float],
) -> tuple[Tensor | None, Tensor | None]:
    """The same for a backward pass that is itself differentiated."""
    grad_x = None
    if of_value is not None:
        grad_x, through_value, *_ = masked_gradients(of_value, code, parameter, 0, *bounds)
        of_scale = through_value if of_scale is None else through_value + of_scale
    if of_scale is None:
        return None, None
    return grad_x, of_scale / divisor * binary_sign(parameter.detach())
