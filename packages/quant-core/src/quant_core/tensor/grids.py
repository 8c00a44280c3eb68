"""What the rules have in common: comparing grids, moving them along with values, counting the bits of a range."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from quant_core.tensor.quant_tensor import QuantTensor

_WIDE = (torch.float32, torch.float64)


def plain(nested: Any) -> Any:
    """The same structure of lists, tuples and dicts, with each quantized tensor replaced by its value."""
    if isinstance(nested, QuantTensor):
        return nested.value
    if isinstance(nested, list):
        return [plain(item) for item in nested]
    if type(nested) is tuple:
        return tuple([plain(item) for item in nested])
    if isinstance(nested, dict):
        return {key: plain(item) for key, item in nested.items()}
    return nested


def same_grid(x: QuantTensor, y: QuantTensor) -> bool:
    """Whether two tensors have one sign, scale, zero-point and format.

    They are the same when they are the same tensors, or come from one quantizer that stores them. (Eager mode compares
    the numbers as well, because a step of an optimizer may lie between two calls; a graph knows no such step, and the
    meta device no numbers.) Two quantizers that happen to have equal numbers are not the same: what holds by accident
    is no rule.
    """
    if x.signed != y.signed or x.float_format != y.float_format:
        return False
    zero = x.symmetric and y.symmetric
    if x.scale is y.scale and (zero or x.zero_point is y.zero_point):
        return True
    if x.origin is None or x.origin is not y.origin:
        return False
    if not (x.per_tensor and y.per_tensor) and _shapes(x) != _shapes(y):
        return False
    if torch.compiler.is_compiling() or x.scale.is_meta or y.scale.is_meta:
        return True
    return _equal(x.scale, y.scale) and (zero or _equal(x.zero_point, y.zero_point))


def is_wide(*tensors: Tensor) -> bool:
    """Whether the dtypes tell the levels of a sum apart; float16 and bfloat16 do not."""
    return all(tensor.dtype in _WIDE for tensor in tensors)


def fit(part: Tensor, value: Tensor) -> Tensor:
    """One scale for all of ``value``: the same tensor where it broadcasts, without axes where it has too many."""
    return part if part.dim() <= value.dim() else part.reshape(())


def with_value(x: QuantTensor, value: Tensor, **fields: Any) -> QuantTensor:
    """``x`` with another value; a per-tensor grid is made to fit it."""
    if x.per_tensor:
        fields = {"scale": fit(x.scale, value), "zero_point": fit(x.zero_point, value), **fields}
    return x.replace(value=value, **fields)


def aligned(part: Tensor, ndim: int) -> Tensor:
    """Axes of size 1 in front, so that a part of the grid has as many axes as the value."""
    return part.reshape((1,) * (ndim - part.dim()) + tuple(part.shape)) if part.dim() < ndim else part


def constant_along(x: QuantTensor, axes: Sequence[int]) -> bool:
    """Whether scale and zero-point do not vary along these axes of the value, told by their shape."""
    if x.per_tensor:
        return True
    return all(aligned(part, x.ndim).shape[axis] == 1 for part in (x.scale, x.zero_point) for axis in axes)


def moved(part: Tensor, shape: Sequence[int], move: Callable[[Tensor], Any]) -> Any:
    """A part of the grid, moved like the value: broadcast to its shape, moved, and made small again."""
    result = move(part.expand(shape))
    return _compact(result) if isinstance(result, Tensor) else [_compact(piece) for piece in result]


def bits(low: Tensor, high: Tensor, *, signed: bool) -> Tensor:
    """The smallest bit width whose range holds ``low … high``.

    Unsigned ``⌈log2(high + 1)⌉``; signed ``1 + max(⌈log2(high + 1)⌉, ⌈log2(−low)⌉)``. Float64 numbers in, 0-dim
    float32 out; no gradient.

    >>> bits(torch.tensor(-16.0), torch.tensor(14.0), signed=True)
    tensor(5.)
    """
    above = torch.ceil(torch.log2(high.detach().clamp(min=0) + 1))
    if signed:
        below = torch.ceil(torch.log2((-low.detach()).clamp(min=1)))
        above = torch.maximum(above, below) + 1
    return above.clamp(min=1).to(torch.float32)


def offsets(x: QuantTensor) -> tuple[Tensor, Tensor]:
    """The smallest and the largest ``integer − zero_point``, 0-dim float64 tensors, without gradient.

    >>> x = QuantTensor(torch.zeros(1), torch.tensor(0.5), torch.tensor(3.0), torch.tensor(4.0), signed=False)
    >>> [int(bound) for bound in offsets(x)]
    [-3, 12]
    """
    low, high = (bound.detach() for bound in x.range())
    if x.symmetric:
        return low, high
    zero_point = x.zero_point.detach().to(torch.float64)
    return low - zero_point.amax(), high - zero_point.amin()


def _shapes(x: QuantTensor) -> tuple[torch.Size, torch.Size]:
    return x.scale.shape, x.zero_point.shape


def _equal(one: Tensor, other: Tensor) -> bool:
    if one.numel() == other.numel() == 1:
        one, other = one.reshape(()), other.reshape(())
    return one.device == other.device and one.dtype == other.dtype and torch.equal(one, other)


def _compact(expanded: Tensor) -> Tensor:
    """Give axes along which a tensor is broadcast the size 1 again; told by their stride, never by their values."""
    for axis, stride in enumerate(expanded.stride()):
        if stride == 0:
            expanded = expanded.narrow(axis, 0, 1) if expanded.shape[axis] != 0 else expanded
    return expanded
