"""The gradients of the native kernels out of plain operations, for where gradients are differentiated once more.

``torch.autograd.grad(…, create_graph=True)`` asks a backward pass for a graph of its own: for products with the Hessian, for
penalties on gradients, for learning to learn. Nothing sees into a kernel, so that a backward pass that is recorded computes
the same by these functions.

Through the straight-through estimator a quantizer is piecewise linear in what it quantizes, in its scale and in its range:
the rounding error of an element is a constant in all of them. So every gradient is linear in the one that comes in, and the
second derivatives are those of the products of scale, zero-point and range that it is multiplied with.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from quant_core.native import ABOVE, BELOW, UNIT
from quant_core.ops.integer_levels import is_zero
from quant_core.ops.rounding import round_to_integer
from quant_core.ops.straight_through import clamp


def is_recorded() -> bool:
    """Whether the backward pass that runs is itself to be differentiated.

    >>> is_recorded()  # in code that no backward pass runs: whether gradients are on
    True
    """
    return torch.is_grad_enabled()


class MaskedGradients(NamedTuple):
    """The gradients of a quantizer whose gradient stops at the clamp; those of the range are ``None`` where it is numbers."""

    x: Tensor
    scale: Tensor
    zero_point: Tensor | None
    low: Tensor | None
    high: Tensor | None


def masked_gradients(
    g: Tensor,
    code: Tensor,
    scale: Tensor,
    zero_point: Tensor | float,
    low: Tensor | float,
    high: Tensor | float,
) -> MaskedGradients:
    """Those of :func:`~quant_core.ops.quantize_int`, from what the kernels keep of each element.

    Args:
        g: the gradient of the value.
        code: int16, of the same shape: the rounding error, or a mark where the element was clamped.
        scale, zero_point, low, high: as the value was computed with them; the scale has its shape only.
    """
    above, below = (code == ABOVE).to(g.dtype), (code == BELOW).to(g.dtype)
    grad_x = g * (1 - above - below)
    errors = (grad_x * (code.to(g.dtype) / UNIT)).sum_to_size(scale.shape)
    at_high, at_low = (g * above).sum_to_size(scale.shape), (g * below).sum_to_size(scale.shape)
    grad_scale = errors + (high - zero_point) * at_high + (low - zero_point) * at_low
    return MaskedGradients(
        grad_x,
        grad_scale,
        None if not isinstance(zero_point, Tensor) else -((at_high + at_low) * scale).sum_to_size(zero_point.shape),
        (at_low * scale).sum().reshape(low.shape) if isinstance(low, Tensor) else None,
        (at_high * scale).sum().reshape(high.shape) if isinstance(high, Tensor) else None,
    )


def rounding_errors(
    x: Tensor, scale: Tensor, zero_point: Tensor | float, low: float, high: float, rounding_mode: str
) -> Tensor:
    """``c − v``, constants: what a gradient that passes the clamp is multiplied with to give that of the scale."""
    with torch.no_grad():
        exact = x / scale if is_zero(zero_point) else x / scale + zero_point
        return clamp(round_to_integer(exact, rounding_mode), low, high) - exact


def shares_of_largest(rows: Tensor) -> Tensor:
    """``sign(x)`` at the largest ``|x|`` of each row, divided by how many there are; 0 elsewhere. Constants: ``(R, n)``."""
    with torch.no_grad():
        magnitudes = rows.abs()
        ties = (magnitudes == magnitudes.amax(dim=1, keepdim=True)).to(rows.dtype)
        return rows.sign() * ties / ties.sum(dim=1, keepdim=True)
