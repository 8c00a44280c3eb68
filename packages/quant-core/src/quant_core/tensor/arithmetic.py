"""Rules of operations that compute new integers: where they land, and how many bits they need."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from quant_core.tensor.quant_tensor import QuantTensor

_MATRIX_PRODUCTS = frozenset({"matmul", "mm", "bmm", "__matmul__"})


def joins(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Join values; the grid is kept where all operands have the same one."""
    operands = args[0] if isinstance(args[0], list | tuple) else args[1:] if name == "where" else args
    if not operands or not all(isinstance(x, QuantTensor) for x in operands) or len(operands) < 1:
        return NotImplemented
    first = operands[0]
    if name in ("max", "min") and len(operands) < 2:
        return NotImplemented
    if first.scale.numel() > 1 or not all(same_grid(first, other) for other in operands[1:]):
        return NotImplemented
    if isinstance(args[0], list | tuple):
        value = function([x.value for x in operands], *args[1:], **kwargs)
    elif name == "where":
        value = function(args[0], *(x.value for x in operands), **kwargs)
    else:
        value = function(*(x.value for x in operands), **kwargs)
    widest = first.bit_width
    for other in operands[1:]:
        widest = torch.maximum(widest, other.bit_width)
    return first.replace(
        value=value,
        bit_width=widest,
        scale=first.scale.reshape(()),
        zero_point=first.zero_point.reshape(()),
        narrow_range=all(x.narrow_range for x in operands),
        symmetric=all(x.symmetric for x in operands),
        zero_on_grid=all(x.zero_on_grid for x in operands),
    )


def adds(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``(q₁ ± q₂ − (z₁ ± z₂)) · s``: the range is that of the sum or difference of the two."""
    if len(args) != 2 or kwargs or not all(isinstance(x, QuantTensor) for x in args):
        return NotImplemented
    x, y = args
    if not same_grid(x, y):
        return NotImplemented
    (low, high), (other_low, other_high) = x.range(), y.range()
    zero_point, other_zero_point = x.zero_point, y.zero_point
    if "sub" in name:
        other_low, other_high, other_zero_point = -other_high, -other_low, -other_zero_point
        if name in ("rsub", "__rsub__"):
            return NotImplemented
    signed = x.signed or "sub" in name
    return x.replace(
        value=function(x.value, y.value),
        zero_point=zero_point if x.symmetric and y.symmetric else zero_point + other_zero_point,
        bit_width=_bits(low + other_low, high + other_high, signed),
        signed=signed,
        narrow_range=False,
        symmetric=x.symmetric and y.symmetric,
        zero_on_grid=x.zero_on_grid and y.zero_on_grid,
    )


def negates(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``(−q − (−z)) · s``: signed, over the mirrored range."""
    x = args[0]
    low, high = x.range()
    return x.replace(
        value=function(x.value),
        zero_point=x.zero_point if x.symmetric else -x.zero_point,
        bit_width=_bits(-high, -low, True),
        signed=True,
        narrow_range=False,
    )


def scales(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Multiply or divide by a positive number: the scale changes. The product of two tensors: see :func:`multiplies`."""
    x, y = (args[1], args[0]) if len(args) == 2 and not isinstance(args[0], QuantTensor) else args[:2]
    if kwargs or len(args) != 2:
        return NotImplemented
    if isinstance(y, QuantTensor):
        return multiplies(name, function, args, kwargs) if "mul" in name else NotImplemented
    if isinstance(y, bool) or not isinstance(y, int | float) or not (y > 0 and math.isfinite(y)):
        return NotImplemented
    return x.replace(value=function(x.value, y), scale=x.scale / y if "div" in name else x.scale * y)


def multiplies(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``Σ q₁ q₂ · (s₁ s₂)`` over the inner size of a matrix product (1 for a product of elements)."""
    if len(args) != 2 or kwargs or not all(isinstance(x, QuantTensor) for x in args):
        return NotImplemented
    x, y = args
    if not (x.symmetric and y.symmetric) or x.scale.numel() > 1 or y.scale.numel() > 1:
        return NotImplemented
    terms = x.shape[-1] if name in _MATRIX_PRODUCTS else 1
    corners = [a * b for a in x.range() for b in y.range()]
    low = torch.minimum(torch.minimum(corners[0], corners[1]), torch.minimum(corners[2], corners[3])) * terms
    high = torch.maximum(torch.maximum(corners[0], corners[1]), torch.maximum(corners[2], corners[3])) * terms
    signed = x.signed or y.signed
    return QuantTensor(
        function(x.value, y.value),
        x.scale.reshape(()) * y.scale.reshape(()),
        x.zero_point.reshape(()),
        _bits(low, high, signed),
        signed=signed,
        training=x.training,
        symmetric=True,
        zero_on_grid=x.zero_on_grid and y.zero_on_grid,
    )


def averages(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``Σ q · (s / n)`` over ``n`` values: the range is ``n`` times as large; for a sum the scale stays ``s``."""
    x = args[0]
    if not isinstance(x, QuantTensor) or not x.symmetric or x.scale.numel() > 1 or kwargs.get("dtype") is not None:
        return NotImplemented
    value = function(x.value, *args[1:], **kwargs)
    count = _pooled(name, args, kwargs, x) if name.endswith("d") else x.value.numel() // max(1, value.numel())
    if count is None:
        return value
    low, high = x.range()
    scale = x.scale.reshape(())
    return x.replace(
        value=value,
        scale=scale if name == "sum" else scale / count,
        zero_point=x.zero_point.reshape(()),
        bit_width=_bits(low * count, high * count, x.signed),
        narrow_range=False,
    )


def same_grid(x: QuantTensor, y: QuantTensor) -> bool:
    """Whether two tensors have one scale, zero-point and sign; while compiling, whether these are the same tensors."""
    if x.signed != y.signed:
        return False
    if x.scale is y.scale and x.zero_point is y.zero_point:
        return True
    if torch.compiler.is_compiling():
        return False
    return torch.equal(x.scale, y.scale) and torch.equal(x.zero_point, y.zero_point)


def accumulator_bit_width(x: QuantTensor, weight: QuantTensor, *, terms: int) -> Tensor:
    """``⌈log2(m_x · m_w · terms)⌉`` with ``m = 2^b − 1``, less one for a narrow range: the bits of a sum of ``terms`` products.

    A bound from bit widths and shapes alone; a 0-dim tensor.

    >>> grid = torch.tensor(1.0), torch.tensor(0.0), torch.tensor(8.0)
    >>> x, w = QuantTensor(torch.zeros(3), *grid, True), QuantTensor(torch.zeros(3), *grid, True, narrow_range=True)
    >>> accumulator_bit_width(x, w, terms=3)
    tensor(18.)
    """
    largest = [2.0 ** t.bit_width.double() - (2.0 if t.narrow_range else 1.0) for t in (x, weight)]
    return torch.ceil(torch.log2(largest[0] * largest[1] * terms)).to(x.bit_width.dtype)


def _bits(low: Tensor, high: Tensor, signed: bool) -> Tensor:
    """The smallest bit width whose range holds ``low … high``."""
    above = torch.ceil(torch.log2(high.clamp(min=0) + 1))
    if not signed:
        return above.to(torch.float32)
    below = torch.ceil(torch.log2((-low).clamp(min=1)))
    return (torch.maximum(above, below) + 1).to(torch.float32)


def _pooled(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], x: QuantTensor) -> int | None:
    """How many values each output of a pooling averages; ``None`` where that is not the same for all."""
    axes = int(name[-2])
    if name.startswith("adaptive"):
        wanted = kwargs.get("output_size", args[1] if len(args) > 1 else None)
        sizes = [wanted] * axes if isinstance(wanted, int) else list(wanted or ())
        spatial = x.shape[-axes:]
        outs = [size if out is None else out for size, out in zip(spatial, sizes, strict=True)]
        if any(size % out for size, out in zip(spatial, outs, strict=True)):
            return None
        return math.prod(size // out for size, out in zip(spatial, outs, strict=True))
    order = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
    given = {**dict(zip(order, args[1:], strict=False)), **kwargs}
    padding = given.get("padding", 0)
    padded = any(padding) if isinstance(padding, list | tuple) else bool(padding)
    if given.get("ceil_mode") or given.get("divisor_override") is not None:
        return None
    if padded and not (given.get("count_include_pad", True) and x.zero_on_grid):
        return None
    kernel = given["kernel_size"]
    return kernel**axes if isinstance(kernel, int) else math.prod(kernel) ** (axes if len(kernel) == 1 else 1)
