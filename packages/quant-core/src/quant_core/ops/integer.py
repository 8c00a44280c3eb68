"""Uniform affine fake quantization: the one function that training runs and exporters lower.

``y = (clamp(round(x / s + z), lo, hi) − z) · s``, with the range ``[lo, hi]`` given by bit width, sign and narrow range.

*One numerics.* Eager training and the dialect op ``quant::int`` share :func:`quantize_levels`, and eager training adds the
hand-written backward of :mod:`quant_core.ops.integer_gradients`; under ``torch.compile`` the same operations are traced one by
one, because a compiler fuses them better itself. Tests hold the three equal.

Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference", CVPR 2018,
equations 1 and 12; gradient of the scale as in Esser et al., "Learned step size quantization", ICLR 2020, equation 3.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from quant_core.ops.integer_gradients import quantize_with_gradient
from quant_core.ops.integer_levels import compute_dtype, dequantize, exact_and_rounded, is_zero
from quant_core.ops.native_gradients import quantize_natively
from quant_core.ops.straight_through import clamp, clamp_ste, rounding_ste, tensor_clamp
from quant_core.tracing import is_traced

ClampGradient = Literal["masked", "pass"]


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
    traced = is_traced()  # then nothing here tells what requires a gradient
    needs_gradient = traced or (
        torch.is_grad_enabled()
        and any(isinstance(t, Tensor) and t.requires_grad for t in (x, scale, zero_point, low, high))
    )
    if traced or torch.compiler.is_compiling():
        if needs_gradient:
            return _composed(x, scale, zero_point, low, high, rounding_mode, clamp_gradient, rectify)
        return fake_quantize(x, scale, zero_point, low, high, rounding_mode, rectify=rectify)
    masked = clamp_gradient == "masked"
    done = quantize_natively(
        x,
        scale,
        zero_point,
        low,
        high,
        rounding_mode,
        masked=masked,
        rectify=rectify,
        differentiable=needs_gradient,
    )
    if done is not None:
        return done
    if not needs_gradient:
        return fake_quantize(x, scale, zero_point, low, high, rounding_mode, rectify=rectify)
    return quantize_with_gradient(x, scale, zero_point, low, high, rounding_mode, masked=masked, rectify=rectify)


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
    return dequantize(levels, scale, zero_point).to(x.dtype)


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
    return clamp(exact_and_rounded(x, scale, zero_point, rounding_mode, rectify)[1], low, high)


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
    levels = (torch.relu(x) if rectify else x).to(compute_dtype(x)) / scale
    if not is_zero(zero_point):
        levels = levels + zero_point
    rounded = rounding_ste(levels, rounding_mode)
    clamped = tensor_clamp(rounded, low, high) if clamp_gradient == "masked" else clamp_ste(rounded, low, high)
    if not is_zero(zero_point):
        clamped = clamped - zero_point
    return (clamped * scale).to(x.dtype)
