"""Uniform affine fake quantization: the one function that training runs and exporters lower.

``y = (clamp(round(x / s + z), lo, hi) − z) · s``, with the range ``[lo, hi]`` given by bit width, sign and narrow range.

What the design answers:

- *Memory.* A chain of tensor operations keeps about ten bytes per element for the backward pass. All that the gradients
  need is one small number per element, ``e``: the rounding residual ``x/s + z − q`` where the value was in range, and
  ``±2`` where it was clamped above or below. It is kept in two bytes (float16; float64 for float64 input).
- *Speed.* Forward and backward are each a handful of in-place, vectorised passes over memory; there is no comparison, no
  mask and no ``where``, each of which costs several times as much as a multiplication on a CPU.
- *One numerics.* Eager training and the dialect op ``quant::int`` share :func:`quantize_levels`; under ``torch.compile`` the
  same operations are traced one by one, because a compiler fuses them better itself. Tests hold the three equal.

Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference", CVPR 2018,
equations 1 and 12; gradient of the scale as in Esser et al., "Learned step size quantization", ICLR 2020, equation 3.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from quant_core.ops.rounding import round_to_integer
from quant_core.ops.straight_through import clamp, clamp_ste, rounding_ste, tensor_clamp

ClampGradient = Literal["masked", "pass"]

_CLIPPED = 2.0
_IN_RANGE = 1.5
_LARGEST_HALF = 65504.0


def integer_range(bit_width: Tensor | float, *, signed: bool, narrow_range: bool) -> tuple[Any, Any]:
    """The smallest and the largest integer of a type; numbers for a number, 0-dim tensors for a tensor.

    Signed: ``−2^(b−1) (+1 if narrow) … 2^(b−1) − 1``. Unsigned: ``0 … 2^b − 1 (−1 if narrow)``.

    >>> integer_range(8, signed=True, narrow_range=True)
    (-127.0, 127.0)
    >>> integer_range(torch.tensor(4.0), signed=False, narrow_range=False)
    (0.0, tensor(15.))
    """
    narrow = 1.0 if narrow_range else 0.0
    if signed:
        half = 2.0 ** (bit_width - 1)
        return narrow - half, half - 1.0
    return 0.0, 2.0**bit_width - 1.0 - narrow


def quantize_int(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | float,
    bit_width: Tensor | float,
    *,
    signed: bool,
    narrow_range: bool = False,
    rounding_mode: str = "ROUND",
    clamp_gradient: ClampGradient = "masked",
    rectify: bool = False,
) -> Tensor:
    """``(clamp(round(x/scale + zero_point), lo, hi) − zero_point) · scale``, with a straight-through gradient.

    Args:
        x: float tensor of any shape. Half precision is computed in float32 and rounded once at the end.
        scale: positive, broadcastable to ``x``: ``()`` per tensor, ``(C, 1, 1, 1)`` per channel of a convolution weight.
        zero_point: integer-valued, broadcastable to ``x``; the number ``0`` skips two passes over memory.
        bit_width: 0-dim tensor, or a number when it is constant, which makes clamping cheaper.
        signed: two's complement range, or one that starts at zero.
        narrow_range: leave out one level, so that a signed range is symmetric.
        rounding_mode: one of :data:`~quant_core.ops.rounding.ROUNDING_MODES`.
        clamp_gradient: ``"masked"`` stops the gradient of ``x`` outside of the range (activations); ``"pass"`` lets it
            through, so that a weight that was clamped can come back.
        rectify: apply ``max(x, 0)`` first, in the same pass. Needs an unsigned range and a zero-point of 0.

    Returns:
        A tensor of ``x``'s shape and dtype.

    Gradient, with ``v = x/scale + zero_point``, ``q`` the rounded and ``c`` the clamped integer, and ``g`` the incoming one:

    - in range: ``g`` to ``x``, ``g·(c − v)`` to ``scale``, nothing to ``zero_point``;
    - clamped at ``b ∈ {lo, hi}``: nothing to ``x``, ``g·(b − zero_point)`` to ``scale``, ``−g·scale`` to ``zero_point``, and
      ``g·scale`` to ``b`` (from where it reaches a learned ``bit_width``);
    - ``"pass"``: ``g`` to ``x`` and ``g·(c − v)`` to ``scale`` everywhere, nothing to the range.

    The residual is kept in float16, so that gradients of ``scale`` carry a relative rounding error of about 2⁻¹².

    >>> quantize_int(torch.tensor([-3.0, 0.26, 0.74]), torch.tensor(0.5), 0, 2, signed=True)
    tensor([-1.0000,  0.5000,  0.5000])
    """
    if torch.compiler.is_exporting():
        captured: Tensor = torch.ops.quant.int(
            torch.relu(x) if rectify else x,
            scale,
            torch.as_tensor(zero_point, dtype=scale.dtype, device=scale.device),
            torch.as_tensor(bit_width, dtype=scale.dtype, device=scale.device),
            signed=signed,
            narrow_range=narrow_range,
            rounding_mode=rounding_mode,
        )
        return captured
    low, high = integer_range(bit_width, signed=signed, narrow_range=narrow_range)
    needs_gradient = torch.is_grad_enabled() and any(
        isinstance(t, Tensor) and t.requires_grad for t in (x, scale, zero_point, low, high)
    )
    if not needs_gradient:
        return fake_quantize(x, scale, zero_point, low, high, rounding_mode, rectify=rectify)
    if torch.compiler.is_compiling():
        return _composed(x, scale, zero_point, low, high, rounding_mode, clamp_gradient, rectify)
    out: Tensor = _QuantizeInt.apply(  # type: ignore[no-untyped-call]
        x, scale, zero_point, low, high, rounding_mode, clamp_gradient == "masked", rectify
    )
    return out


def fake_quantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | float,
    low: Tensor | float,
    high: Tensor | float,
    rounding_mode: str = "ROUND",
    *,
    rectify: bool = False,
) -> Tensor:
    """The forward formula of :func:`quantize_int` alone, for a given integer range; no gradient is defined.

    >>> fake_quantize(torch.tensor([0.3, 9.0]), torch.tensor(0.5), 0, 0.0, 3.0)
    tensor([0.5000, 1.5000])
    """
    levels = quantize_levels(x, scale, zero_point, low, high, rounding_mode, rectify=rectify)
    return _dequantize(levels, scale, zero_point).to(x.dtype)


def quantize_levels(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | float,
    low: Tensor | float,
    high: Tensor | float,
    rounding_mode: str = "ROUND",
    *,
    rectify: bool = False,
) -> Tensor:
    """``clamp(round(x/scale + zero_point), low, high)``: the integers themselves, in a float dtype; no gradient is defined.

    >>> quantize_levels(torch.tensor([0.3, 9.0]), torch.tensor(0.5), 0, 0.0, 3.0)
    tensor([1., 3.])
    """
    return clamp(_levels(x, scale, zero_point, rounding_mode, rectify)[1], low, high)


def _composed(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | float,
    low: Tensor | float,
    high: Tensor | float,
    rounding_mode: str,
    clamp_gradient: ClampGradient,
    rectify: bool,
) -> Tensor:
    """The same function out of plain operations, which a compiler fuses better than the hand-written backward."""
    levels = (torch.relu(x) if rectify else x).to(_compute_dtype(x)) / scale
    if not _is_zero(zero_point):
        levels = levels + zero_point
    rounded = rounding_ste(levels, rounding_mode)
    clamped = tensor_clamp(rounded, low, high) if clamp_gradient == "masked" else clamp_ste(rounded, low, high)
    if not _is_zero(zero_point):
        clamped = clamped - zero_point
    return (clamped * scale).to(x.dtype)


def _levels(
    x: Tensor, scale: Tensor, zero_point: Tensor | float, rounding_mode: str, rectify: bool
) -> tuple[Tensor, Tensor]:
    """``x/scale + zero_point`` and the same rounded, before clamping."""
    exact = x.to(_compute_dtype(x)) / scale
    if rectify:
        # Below zero a value is put far below the range: it is clamped to zero, and marked as clamped, so no gradient passes.
        exact = torch.threshold_(exact, 0.0, -4.0)
    if not _is_zero(zero_point):
        exact = exact.add_(zero_point)
    return exact, round_to_integer(exact, rounding_mode)


def _dequantize(levels: Tensor, scale: Tensor, zero_point: Tensor | float) -> Tensor:
    """``(levels − zero_point) · scale``, in place."""
    if not _is_zero(zero_point):
        levels = levels.sub_(zero_point)
    return levels.mul_(scale)


class _QuantizeInt(torch.autograd.Function):
    """The fused forward and backward; see the head of this file for the code ``e`` that is kept."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        zero_point: Tensor | float,
        low: Tensor | float,
        high: Tensor | float,
        rounding_mode: str,
        masked: bool,
        rectify: bool,
    ) -> Tensor:
        exact, rounded = _levels(x, scale, zero_point, rounding_mode, rectify)
        clamped = clamp(rounded, low, high)
        residual = exact.sub_(clamped)
        if masked:
            residual = residual.add_(rounded.sub_(clamped), alpha=3.0).clamp_(-_CLIPPED, _CLIPPED)
        elif x.dtype != torch.float64:
            residual = residual.clamp_(-_LARGEST_HALF, _LARGEST_HALF)
        code = residual.to(torch.float64 if x.dtype == torch.float64 else torch.float16)
        ctx.save_for_backward(code, scale, *(t for t in (zero_point, low, high) if isinstance(t, Tensor)))
        ctx.numbers = [None if isinstance(t, Tensor) else t for t in (zero_point, low, high)]
        ctx.masked = masked
        return _dequantize(clamped, scale, zero_point).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad = grads[0]
        code, scale, *tensors = ctx.saved_tensors
        zero_point, low, high = (tensors.pop(0) if number is None else number for number in ctx.numbers)
        _, for_scale, for_zero_point, for_low, for_high = ctx.needs_input_grad[:5]
        g = grad.to(_compute_dtype(grad))
        residual = code.to(g.dtype)
        if not ctx.masked:
            grad_scale = _sum_of_products(g, residual, scale.shape).neg() if for_scale else None
            return grad, grad_scale, None, None, None, None, None, None
        inside = torch.ops.aten.hardtanh_backward(g, residual, -_IN_RANGE, _IN_RANGE)
        grad_x = inside.to(grad.dtype)
        if not (for_scale or for_zero_point or for_low or for_high):
            return grad_x, None, None, None, None, None, None, None
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
        return grad_x, grad_scale, grad_zero_point, grad_low, grad_high, None, None, None


def _sum_of_products(x: Tensor, y: Tensor, shape: torch.Size) -> Tensor:
    """``Σ x·y`` over the axes along which a tensor of that shape is broadcast; one pass over memory where it is a number."""
    if len(shape) == 0 and x.is_contiguous() and y.is_contiguous():
        return torch.dot(x.view(-1), y.view(-1))
    return _sum_to(x * y, shape)


def _sum_to(x: Tensor, shape: torch.Size) -> Tensor:
    """The sum of ``x`` over the axes along which a tensor of that shape is broadcast; a plain sum is the faster kernel."""
    return x.sum() if len(shape) == 0 else x.sum_to_size(shape)


def _is_zero(zero_point: Tensor | float) -> bool:
    return not isinstance(zero_point, Tensor) and zero_point == 0


def _compute_dtype(x: Tensor) -> torch.dtype:
    """Half precision cannot hold the integers of eight bits between the steps, so it is computed in float32."""
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
