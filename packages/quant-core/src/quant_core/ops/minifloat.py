"""Fake quantization to minifloats: the number of a few bits that is nearest to ``x/scale``, times the scale.

The distance between two neighbours is a power of two that grows with the value. It is found by taking the value apart into
mantissa and exponent, which is exact where a logarithm is not.

Micikevicius et al., "FP8 formats for deep learning", arXiv:2209.05433; the straight-through gradient as for integers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from quant_core.ops.float_format import FloatFormat
from quant_core.ops.integer import ClampGradient
from quant_core.ops.integer_levels import compute_dtype
from quant_core.ops.rounding import round_to_integer
from quant_core.ops.straight_through import straight_through


def quantize_float(
    x: Tensor,
    scale: Tensor,
    float_format: FloatFormat,
    *,
    rounding_mode: str = "ROUND",
    clamp_gradient: ClampGradient = "masked",
) -> Tensor:
    """``r(x/scale) · scale``, where ``r`` rounds to a number of the format.

    Args:
        x: float tensor of any shape. Half precision is computed in float32 and rounded once at the end.
        scale: positive, broadcastable to ``x``.
        float_format: which numbers there are.
        rounding_mode: one of :data:`~quant_core.ops.rounding.ROUNDING_MODES`.
        clamp_gradient: as in :func:`~quant_core.ops.quantize_int`.

    Gradient, with ``v = x/scale`` and ``q = r(v)``: ``g`` to ``x`` and ``g·(q − v)`` to ``scale``; where ``v`` is rounded to more
    than the largest number nothing to ``x`` and ``g·q`` to ``scale``, or as before with ``"pass"``.

    >>> e4m3 = FloatFormat.of_bits(4, 3)
    >>> quantize_float(torch.tensor([0.3, -17.3, 1000.0]), torch.tensor(1.0), e4m3).tolist()
    [0.3125, -18.0, 480.0]
    """
    if torch.compiler.is_exporting():
        captured: Tensor = torch.ops.quant.float(x, scale, **float_format.fields, rounding_mode=rounding_mode)
        return captured
    exact = x.to(compute_dtype(x)) / scale
    rounded = round_unbounded(exact.detach(), float_format, rounding_mode)
    if clamp_gradient == "masked":
        numbers = bound(straight_through(exact, rounded), float_format)
    else:
        numbers = straight_through(exact, bound(rounded, float_format))
    return (numbers * scale).to(x.dtype)


def fake_float(x: Tensor, scale: Tensor, float_format: FloatFormat, rounding_mode: str = "ROUND") -> Tensor:
    """The forward formula of :func:`quantize_float` alone; no gradient is defined.

    >>> fake_float(torch.tensor([0.3]), torch.tensor(0.5), FloatFormat.of_bits(2, 1))
    tensor([0.2500])
    """
    exact = x.to(compute_dtype(x)) / scale
    return (round_to_format(exact, float_format, rounding_mode) * scale).to(x.dtype)


def round_to_format(x: Tensor, float_format: FloatFormat, rounding_mode: str = "ROUND") -> Tensor:
    """The numbers of a format that ``x`` is rounded to; float32 or float64 in and out.

    What is beyond the largest number becomes that number, or else an infinity or NaN where the format does not saturate.

    >>> ocp = FloatFormat.of_bits(5, 2, inf_values=("00",), nan_values=("01", "10", "11"), saturating=False)
    >>> round_to_format(torch.tensor([1.3, 6e4, 7e4]), ocp)
    tensor([1.2500e+00, 5.7344e+04,        inf])
    """
    return bound(round_unbounded(x, float_format, rounding_mode), float_format)


def round_unbounded(x: Tensor, float_format: FloatFormat, rounding_mode: str = "ROUND") -> Tensor:
    """What ``x`` is rounded to if there are larger numbers than the format has, up to four times the largest.

    >>> round_unbounded(torch.tensor([480.0, 495.0, 505.0, 1e9]), FloatFormat.of_bits(4, 3))
    tensor([ 480.,  480.,  512., 1920.])
    """
    limit = 4 * float_format.max_value  # beyond that all is too large alike
    bounded = x.clamp(-limit, limit)
    step = spacing(bounded, float_format)
    return round_to_integer(bounded / step, rounding_mode) * step


def bound(numbers: Tensor, float_format: FloatFormat) -> Tensor:
    """What is too large becomes the largest number, or infinity, or NaN; no gradient passes there.

    >>> bound(torch.tensor([480.0, 512.0, -1920.0]), FloatFormat.of_bits(4, 3))
    tensor([ 480.,  480., -480.])
    """
    largest = float_format.max_value
    if float_format.saturating:
        return numbers.clamp(-largest, largest)
    code = math.inf if float_format.has_inf else math.nan
    beyond = torch.copysign(torch.full_like(numbers, code), numbers.detach())
    return torch.where(numbers.abs() > largest, beyond, numbers)


def spacing(x: Tensor, float_format: FloatFormat) -> Tensor:
    """The distance between the numbers around ``x``: ``2^(⌊log2|x|⌋ − mantissa bits)``, and that around 0 at least.

    >>> spacing(torch.tensor([0.0, 1.0, 17.3]), FloatFormat.of_bits(4, 3)).tolist()
    [0.001953125, 0.125, 2.0]
    """
    mantissa = torch.frexp(x).mantissa
    above = x / torch.where(mantissa == 0, torch.ones_like(mantissa), mantissa)  # the power of two above |x|, exactly
    step = above * 0.5 ** (float_format.mantissa_bit_width + 1)
    if float_format.has_subnormal:
        return step.clamp(min=float_format.least_spacing)
    return torch.where(x.abs() < float_format.smallest_normal, torch.full_like(step, float_format.least_spacing), step)
