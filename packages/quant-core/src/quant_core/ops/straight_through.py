"""Straight-through estimators: exact steps forward, a useful gradient backward.

A rounding step has the gradient zero, so that nothing would train through it. The straight-through estimator keeps the
step in the forward pass and takes the gradient of a smooth stand-in in the backward pass (Bengio, Léonard and Courville,
"Estimating or propagating gradients through stochastic neurons for conditional computation", arXiv:1308.3432, section 4).

All functions take and return tensors of any shape in any float dtype, and work in eager mode, under ``torch.compile`` and
under ``torch.export``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from quant_core.ops.rounding import round_to_integer
from quant_core.tracing import is_traced


class _StraightThrough(torch.autograd.Function):
    """``y`` forward; the gradient goes to ``x`` unchanged."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class _ClampMin(torch.autograd.Function):
    """``max(x, low)`` forward; the gradient goes to ``x`` unchanged."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float) -> Tensor:
        return x.clamp(min=low)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class _AbsBinarySign(torch.autograd.Function):
    """``max(|x|, low)`` forward; backward multiplies by ``+1`` at zero, where the derivative of ``|x|`` is not defined."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float | None) -> Tensor:
        ctx.save_for_backward(x)
        return x.abs() if low is None else x.abs().clamp(min=low)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return grads[0] * binary_sign(x), None


def straight_through(x: Tensor, y: Tensor) -> Tensor:
    """``y`` in the forward pass, the gradient of ``x`` in the backward pass: ``∂out/∂x = 1``, ``∂out/∂y = 0``.

    >>> x = torch.tensor([0.3], requires_grad=True)
    >>> straight_through(x, torch.tensor([7.0])).backward()
    >>> x.grad
    tensor([1.])
    """
    if is_traced():
        return (x - x.detach()) + y.detach()  # the difference is 0, and adds nothing to y
    out: Tensor = _StraightThrough.apply(x, y.detach())  # type: ignore[no-untyped-call]
    return out


def round_ste(x: Tensor) -> Tensor:
    """Round to nearest, ties to even; ``∂out/∂x = 1``.

    >>> round_ste(torch.tensor([0.5, 1.5, -1.2]))
    tensor([ 0.,  2., -1.])
    """
    return rounding_ste(x, "ROUND")


def floor_ste(x: Tensor) -> Tensor:
    """``⌊x⌋``; ``∂out/∂x = 1``.

    >>> floor_ste(torch.tensor([1.7, -1.2]))
    tensor([ 1., -2.])
    """
    return rounding_ste(x, "FLOOR")


def ceil_ste(x: Tensor) -> Tensor:
    """``⌈x⌉``; ``∂out/∂x = 1``.

    >>> ceil_ste(torch.tensor([1.2, -1.7]))
    tensor([ 2., -1.])
    """
    return rounding_ste(x, "CEIL")


def round_to_zero_ste(x: Tensor) -> Tensor:
    """``sign(x)·⌊|x|⌋``; ``∂out/∂x = 1``.

    >>> round_to_zero_ste(torch.tensor([1.7, -1.7]))
    tensor([ 1., -1.])
    """
    return rounding_ste(x, "TO_ZERO")


def round_half_up_ste(x: Tensor) -> Tensor:
    """Round to nearest, ties towards +∞; ``∂out/∂x = 1``.

    >>> round_half_up_ste(torch.tensor([0.5, -0.5, -1.5]))
    tensor([ 1.,  0., -1.])
    """
    return rounding_ste(x, "HALF_UP")


def rounding_ste(x: Tensor, mode: str) -> Tensor:
    """Round in the given :data:`~quant_core.ops.rounding.RoundingMode`; ``∂out/∂x = 1``.

    >>> rounding_ste(torch.tensor([1.7]), "FLOOR")
    tensor([1.])
    """
    return straight_through(x, round_to_integer(x.detach(), mode))


def clamp_ste(x: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """``min(max(x, low), high)``; ``∂out/∂x = 1`` everywhere, also outside of the range, and no gradient to the bounds.

    >>> clamp_ste(torch.tensor([-3.0, 0.5, 3.0]), -1.0, 1.0)
    tensor([-1.0000,  0.5000,  1.0000])
    """
    return straight_through(x, clamp(x.detach(), low, high))


def clamp_min_ste(x: Tensor, low: float) -> Tensor:
    """``max(x, low)``; ``∂out/∂x = 1`` everywhere, so that a value below the minimum can grow out of it.

    >>> clamp_min_ste(torch.tensor([-3.0, 0.5]), 0.1)
    tensor([0.1000, 0.5000])
    """
    if is_traced():
        return straight_through(x, x.clamp(min=low))
    out: Tensor = _ClampMin.apply(x, low)  # type: ignore[no-untyped-call]
    return out


def tensor_clamp(x: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """``min(max(x, low), high)`` with the true gradient.

    ``∂out/∂x = [low ≤ x ≤ high]``, ``∂out/∂low = [x < low]``, ``∂out/∂high = [x > high]``, summed over broadcast axes.

    >>> x = torch.tensor([-3.0, 0.5, 3.0], requires_grad=True)
    >>> high = torch.tensor(1.0, requires_grad=True)
    >>> tensor_clamp(x, -1.0, high).sum().backward()
    >>> x.grad, high.grad
    (tensor([0., 1., 0.]), tensor(1.))
    """
    return clamp(x, low, high)


def binary_sign(x: Tensor) -> Tensor:
    """``+1`` where ``x ≥ 0``, else ``−1``; no gradient.

    >>> binary_sign(torch.tensor([-0.2, 0.0, 3.0]))
    tensor([-1.,  1.,  1.])
    """
    return torch.copysign(torch.ones((), dtype=x.dtype, device=x.device), x + 0.0)  # −0 + 0 is +0


def binary_sign_ste(x: Tensor) -> Tensor:
    """``+1`` where ``x ≥ 0``, else ``−1``; ``∂out/∂x = 1``.

    >>> binary_sign_ste(torch.tensor([-0.2, 0.0]))
    tensor([-1.,  1.])
    """
    return straight_through(x, binary_sign(x.detach()))


def ternary_sign_ste(x: Tensor) -> Tensor:
    """``−1``, ``0`` or ``+1``, the sign of ``x``; ``∂out/∂x = 1``.

    >>> ternary_sign_ste(torch.tensor([-0.2, 0.0, 3.0]))
    tensor([-1.,  0.,  1.])
    """
    return straight_through(x, torch.sign(x.detach()))


def abs_binary_sign_grad(x: Tensor) -> Tensor:
    """``|x|``; ``∂out/∂x = +1`` where ``x ≥ 0``, else ``−1``, so that a value that reached zero can leave it.

    >>> x = torch.tensor([-2.0, 0.0], requires_grad=True)
    >>> abs_binary_sign_grad(x).sum().backward()
    >>> x.grad
    tensor([-1.,  1.])
    """
    if is_traced():
        return x * binary_sign(x.detach())
    out: Tensor = _AbsBinarySign.apply(x, None)  # type: ignore[no-untyped-call]
    return out


def magnitude_at_least(x: Tensor, low: float) -> Tensor:
    """``max(|x|, low)``; ``∂out/∂x = +1`` where ``x ≥ 0``, else ``−1``, also below ``low``: what a learned scale needs.

    >>> x = torch.tensor([-2.0, 0.01], requires_grad=True)
    >>> y = magnitude_at_least(x, 0.1)
    >>> y.sum().backward()
    >>> y.tolist() == [2.0, torch.tensor(0.1).item()], x.grad
    (True, tensor([-1.,  1.]))
    """
    if is_traced():
        return clamp_min_ste(abs_binary_sign_grad(x), low)
    out: Tensor = _AbsBinarySign.apply(x, low)  # type: ignore[no-untyped-call]
    return out


def clamp(x: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """``min(max(x, low), high)`` with numbers or tensors as bounds, which ``torch.clamp`` does not mix.

    >>> clamp(torch.tensor([-3.0, 3.0]), 0.0, torch.tensor(1.0))
    tensor([0., 1.])
    """
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        low, high = (torch.as_tensor(bound, dtype=x.dtype, device=x.device) for bound in (low, high))
        return torch.clamp(x, low, high)
    return x.clamp(low, high)
