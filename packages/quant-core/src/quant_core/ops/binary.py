"""Binary and ternary fake quantization: the sign of a value times a scale.

Courbariaux et al., "Binarized neural networks", arXiv:1602.02830, equation 1; Li, Zhang and Liu, "Ternary weight networks",
arXiv:1605.04711, equation 3.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from quant_core.ops.straight_through import binary_sign, binary_sign_ste, tensor_clamp, ternary_sign_ste
from quant_core.tracing import is_composed


def quantize_binary(x: Tensor, scale: Tensor, *, clamped: bool = False) -> Tensor:
    """``sign(x) · scale`` with ``sign(0) = +1``.

    ``x``: float tensor; ``scale``: positive, broadcastable to it. Gradient: ``g · scale`` to ``x``, ``g · sign(x)`` to
    ``scale``. With ``clamped`` it is that of ``sign(clamp(x, −scale, scale)) · scale``: beyond the scale ``x`` gets none, and
    ``scale`` gets ``g · scale · sign(x)`` besides.

    >>> quantize_binary(torch.tensor([0.04, -0.6, 3.3]), torch.tensor(0.1))
    tensor([ 0.1000, -0.1000,  0.1000])
    """
    if torch.compiler.is_exporting():
        captured: Tensor = torch.ops.quant.binary(x, scale)
        return captured
    if is_composed():
        return binary_sign_ste(tensor_clamp(x, -scale, scale) if clamped else x) * scale
    out: Tensor = _Binary.apply(x, scale, clamped)  # type: ignore[no-untyped-call]
    return out


def quantize_ternary(x: Tensor, scale: Tensor, threshold: float) -> Tensor:
    """``sign(x) · [|x| > threshold · scale] · scale``.

    ``x``: float tensor; ``scale``: positive, broadcastable to it; ``threshold``: between 0 and 1, as a share of the scale.
    Gradient: ``g · scale`` to ``x`` where it is above the threshold and none where it became 0; ``g · sign(x) · mask`` to
    ``scale``. What became 0 stays there as far as the loss is concerned; integers of 2 bits and narrow range have a gradient
    everywhere.

    >>> quantize_ternary(torch.tensor([0.04, -0.6, 3.3]), torch.tensor(0.1), 0.5)
    tensor([ 0.0000, -0.1000,  0.1000])
    """
    if torch.compiler.is_exporting():
        captured: Tensor = torch.ops.quant.ternary(x, scale, threshold=threshold)
        return captured
    mask = (x.detach().abs() > threshold * scale.detach()).to(x.dtype)
    return ternary_sign_ste(x) * mask * scale


def fake_binary(x: Tensor, scale: Tensor) -> Tensor:
    """The forward formula of :func:`quantize_binary` alone.

    >>> fake_binary(torch.tensor([0.0, -0.6]), torch.tensor(0.5))
    tensor([ 0.5000, -0.5000])
    """
    return binary_sign(x) * scale


def fake_ternary(x: Tensor, scale: Tensor, threshold: float) -> Tensor:
    """The forward formula of :func:`quantize_ternary` alone.

    >>> fake_ternary(torch.tensor([0.1, -0.6]), torch.tensor(0.5), 0.5)
    tensor([ 0.0000, -0.5000])
    """
    return torch.sign(x) * (x.abs() > threshold * scale).to(x.dtype) * scale


class _Binary(torch.autograd.Function):
    """Keeps the output where the scale learns, and a byte per element where the gradient is clamped."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, clamped: bool) -> Tensor:
        out = fake_binary(x, scale)
        inside = x.abs() <= scale if clamped else None
        ctx.save_for_backward(scale, inside, out if ctx.needs_input_grad[1] else None)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        scale, inside, out = ctx.saved_tensors
        grad_x = grads[0] * scale
        if inside is not None:
            grad_x = grad_x.mul_(inside)
        grad_scale = None
        if ctx.needs_input_grad[1]:
            products = grads[0] * out
            grad_scale = (products / scale).sum_to_size(scale.shape)
            if inside is not None:
                grad_scale = grad_scale + (products * ~inside).sum_to_size(scale.shape)
        return grad_x.to(grads[0].dtype), grad_scale, None
