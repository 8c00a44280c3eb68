"""Rules of operations that compute new integers: where they land, and how many bits they need."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Final

import torch
from torch import Tensor

from quant_core.tensor.grids import bits, is_wide, offsets, same_grid, with_value
from quant_core.tensor.quant_tensor import QuantTensor

_QUOTIENTS: Final = ("div",)


def adds(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``(q₁ ± q₂ − (z₁ ± z₂)) · s`` for two tensors of one grid; the range is that of the sum or difference."""
    if not _two_quantized(args, kwargs) or not same_grid(*args) or not is_wide(args[0].value, args[1].value):
        return NotImplemented
    x, y = reversed(args) if name == "rsub" else args
    (low, high), (other_low, other_high), other_zero_point = x.range(), y.range(), y.zero_point
    if name != "add":
        other_low, other_high, other_zero_point = -other_high, -other_low, -other_zero_point
    symmetric, signed = x.symmetric and y.symmetric, x.signed or name != "add"
    value = function(args[0].value, args[1].value)
    zero_point = {} if symmetric else {"zero_point": x.zero_point + other_zero_point, "origin": None}
    return with_value(x, value).replace(
        bit_width=bits(low + other_low, high + other_high, signed=signed),
        signed=signed,
        narrow_range=False,
        symmetric=symmetric,
        zero_on_grid=x.zero_on_grid and y.zero_on_grid,
        **zero_point,
    )


def negates(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``(−q − (−z)) · s``: signed, over the mirrored range."""
    x = args[0]
    low, high = x.range()
    return x.replace(
        value=function(x.value),
        zero_point=x.zero_point if x.symmetric else -x.zero_point,
        bit_width=bits(-high, -low, signed=True),
        signed=True,
        narrow_range=False,
        origin=x.origin if x.symmetric else None,
    )


def magnitudes(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``|q| · s`` of a symmetric grid: unsigned, up to the largest magnitude."""
    x = args[0]
    if not x.symmetric:
        return NotImplemented
    low, high = x.range()
    width = bits(torch.zeros_like(low), torch.maximum(-low, high), signed=False)
    return x.replace(value=function(x.value), bit_width=width, signed=False, narrow_range=False)


def scales(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``(q − z) · (s · c)`` for a positive Python number ``c``. The product of two tensors: see :func:`multiplies`."""
    if _two_quantized(args, kwargs):
        return NotImplemented if name in _QUOTIENTS else multiplies(name, function, args, kwargs)
    if len(args) != 2 or kwargs or not isinstance(args[0], QuantTensor):
        return NotImplemented
    x, factor = args
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not (factor > 0 and math.isfinite(factor)):
        return NotImplemented
    scale = x.scale / factor if name in _QUOTIENTS else x.scale * factor
    return x.replace(value=function(x.value, factor), scale=scale, origin=None)


def multiplies(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``Σ q₁ q₂ · (s₁ s₂)`` of symmetric grids, over the inner size of a matrix product (1 for elementwise)."""
    if not _two_quantized(args, kwargs):
        return NotImplemented
    x, y = args
    matrices = name != "mul"
    if not (x.symmetric and y.symmetric) or (matrices and not (x.per_tensor and y.per_tensor)):
        return NotImplemented
    value = function(x.value, y.value)
    if not is_wide(x.value, y.value, value):
        return value
    terms = x.shape[-1] if matrices else 1
    low, high = products(x, y)
    signed = x.signed or y.signed
    scale = x.scale.reshape(()) * y.scale.reshape(()) if x.per_tensor and y.per_tensor else x.scale * y.scale
    return QuantTensor(
        value,
        scale,
        torch.zeros_like(scale),
        bits(low * terms, high * terms, signed=signed),
        signed=signed,
        training=x.training,
        symmetric=True,
        zero_on_grid=x.zero_on_grid and y.zero_on_grid,
    )


def products(x: QuantTensor, y: QuantTensor) -> tuple[Tensor, Tensor]:
    """The smallest and the largest product of ``q − z`` of ``x`` and of ``y``: at corners of their ranges."""
    corners = [one * other for one in offsets(x) for other in offsets(y)]
    return _all(torch.minimum, corners), _all(torch.maximum, corners)


def _all(pick: Callable[[Tensor, Tensor], Tensor], numbers: Iterable[Tensor]) -> Tensor:
    first, *rest = numbers
    for number in rest:
        first = pick(first, number)
    return first


def _two_quantized(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return len(args) == 2 and not kwargs and isinstance(args[0], QuantTensor) and isinstance(args[1], QuantTensor)
