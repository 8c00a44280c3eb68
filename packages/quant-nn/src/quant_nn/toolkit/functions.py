"""Quantizing one tensor with one call, by the largest magnitude that it may have."""

from __future__ import annotations

from numbers import Integral
from typing import Final

import torch
from torch import Tensor

from quant_core.components.restriction import SMALLEST_THRESHOLD
from quant_core.errors import ConfigurationError, InputError
from quant_core.ops import integer_range, quantize_int, rounding_ste, tensor_clamp

_EXACT_BITS: Final = 24
"""Quotients that are rounded to integers of more bits are computed in float64."""


def tensor_quant(
    inputs: Tensor,
    amax: Tensor | float,
    num_bits: int = 8,
    output_dtype: torch.dtype = torch.float,
    unsigned: bool = False,
    narrow_range: bool = True,
) -> tuple[Tensor, Tensor]:
    """``clamp(round(x / step), lo, hi)`` with ``step = amax / hi``: the integers, and ``hi / amax``.

    ``hi = 2^(b−1) − 1`` signed and ``2^b − 1`` unsigned, and ``lo = −hi`` or 0.

    Args:
        inputs: float tensor of any shape.
        amax: the largest magnitude, which becomes the largest integer; broadcastable to ``inputs``. Where it is 0
            the integers are 0.
        num_bits: ``b``, from 2 to 32.
        output_dtype: dtype of the integers, one that holds all of them exactly.
        unsigned: whether the integers start at 0.
        narrow_range: leave out ``−2^(b−1)``; it is of no effect on unsigned integers.

    Returns:
        The integers, in the shape of ``inputs``, and ``hi / amax``, in the shape of ``amax``: how many levels there are to 1, so
        that the integers are to be divided by it.

    Gradient: ``hi / amax`` to ``inputs`` in the range and nothing beyond, so that integers divided by it have the gradient 1
    (straight-through; Bengio et al., arXiv:1308.3432); none to ``amax``.

    Raises:
        InputError: when inputs hold NaN, or are negative where integers cannot be; or when ``amax`` is negative, not finite or
            of another shape.
        ConfigurationError: when there is no integer of so many bits, or ``output_dtype`` does not hold them.

    >>> tensor_quant(torch.tensor([0.6, -1.0, 0.1]), amax=1.0, num_bits=4)
    (tensor([ 4., -7.,  1.]), tensor(7.))
    """
    inputs, largest, low, high = _grid(inputs, amax, num_bits, unsigned, narrow_range)
    _check_holds(output_dtype, num_bits, low, high)
    wide = torch.float64 if num_bits > _EXACT_BITS else largest.dtype
    step = largest.to(wide) / high
    integers = tensor_clamp(rounding_ste(inputs.to(wide) / step, "ROUND"), low, high)
    return integers.to(output_dtype), high / largest


def fake_tensor_quant(
    inputs: Tensor,
    amax: Tensor | float,
    num_bits: int = 8,
    output_dtype: torch.dtype = torch.float,
    unsigned: bool = False,
    narrow_range: bool = True,
) -> Tensor:
    """``clamp(round(x / step), lo, hi) · step`` with ``step = amax / hi``: the nearest of what the integers stand for.

    Arguments and errors as :func:`tensor_quant`, with a float as ``output_dtype``; the formula is that of
    :func:`quant_core.ops.quantize_int`.

    Gradient: 1 to ``inputs`` in the range and nothing beyond; none to ``amax``.

    >>> fake_tensor_quant(torch.tensor([0.6, -1.0, 3.0]), amax=1.0, num_bits=4)
    tensor([ 0.5714, -1.0000,  1.0000])
    """
    inputs, largest, _, high = _grid(inputs, amax, num_bits, unsigned, narrow_range)
    if not output_dtype.is_floating_point:
        raise ConfigurationError(
            f"output_dtype={output_dtype} holds no fractions",
            why="what integers stand for are floats",
            fix="Use tensor_quant() for the integers, or a dtype such as torch.float.",
        )
    narrow = narrow_range and not unsigned
    return quantize_int(inputs, largest / high, 0.0, num_bits, signed=not unsigned, narrow_range=narrow).to(
        output_dtype
    )


def check_num_bits(num_bits: object, *, where: str | None = None) -> int:
    """Return a number of bits when it is one.

    Raises:
        ConfigurationError: when it is not a whole number from 2 to 32.

    >>> check_num_bits(8)
    8
    """
    if isinstance(num_bits, bool) or not isinstance(num_bits, Integral) or not 2 <= int(num_bits) <= 32:
        raise ConfigurationError(
            f"num_bits={num_bits!r} is not a number of bits",
            where=where,
            why="integers have a whole number of bits, from 2 to 32",
            fix="Use 8, or 4 for weights.",
        )
    return int(num_bits)


def _grid(
    inputs: Tensor, amax: Tensor | float, num_bits: int, unsigned: bool, narrow_range: bool
) -> tuple[Tensor, Tensor, float, float]:
    """The inputs, 0 where ``amax`` is; ``amax``, the smallest and the largest integer."""
    narrow = narrow_range and not unsigned
    low, high = integer_range(check_num_bits(num_bits), signed=not unsigned, narrow_range=narrow)
    wide = torch.float64 if inputs.dtype == torch.float64 else torch.float32
    largest = torch.as_tensor(amax, dtype=wide, device=inputs.device).detach()
    if not torch.compiler.is_compiling():
        _check(inputs, largest, unsigned)
    return torch.where(largest > 0, inputs, 0), largest.clamp(min=SMALLEST_THRESHOLD), low, high


def _check_holds(dtype: torch.dtype, num_bits: int, low: float, high: float) -> None:
    if dtype.is_floating_point:
        holds = high <= 2 / torch.finfo(dtype).eps
    else:
        known = None if dtype.is_complex or dtype == torch.bool else torch.iinfo(dtype)
        holds = known is not None and known.min <= low and high <= known.max
    if not holds:
        raise ConfigurationError(
            f"output_dtype={dtype} does not hold integers of {num_bits} bits",
            why=f"they go from {low:.0f} to {high:.0f}, and not all of them are numbers of that dtype",
            fix="Use torch.int64, or torch.float64.",
        )


def _check(inputs: Tensor, amax: Tensor, unsigned: bool) -> None:
    if not bool(torch.all(torch.isfinite(amax) & (amax >= 0))):
        raise InputError(
            "amax is no largest magnitude",
            why=f"it is finite and not negative, and here from {amax.min().item():g} to {amax.max().item():g}",
            fix="Look for infinities and NaN in the tensor that it was computed from.",
        )
    try:
        fits = torch.broadcast_shapes(inputs.shape, amax.shape) == inputs.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise InputError(
            f"amax of shape {tuple(amax.shape)} does not fit a tensor of shape {tuple(inputs.shape)}",
            why="it is broadcast to the tensor: one element, or one for each index along an axis and 1 elsewhere",
            fix="Compute it with keepdim=True, for example x.abs().amax(dim=(1, 2, 3), keepdim=True).",
        )
    if bool(torch.isnan(inputs).any()):
        raise InputError(
            "NaN cannot be quantized",
            why=f"{int(torch.isnan(inputs).sum())} of the {inputs.numel()} elements of the tensor are NaN",
            fix="Look for infinities and NaN in the data, and in the weights of the layers before.",
        )
    if unsigned and inputs.numel() and bool(inputs.min() < 0):
        raise InputError(
            "negative numbers have no unsigned integers",
            why=f"the smallest of the tensor is {inputs.min().item():g}",
            fix="Set unsigned=False, or quantize behind a ReLU.",
        )
