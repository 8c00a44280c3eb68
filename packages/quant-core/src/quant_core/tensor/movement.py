"""Rules of operations that move, select or convert values without computing new ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from quant_core.tensor.quant_tensor import QuantTensor

_PER_TENSOR_ONLY = frozenset({"take_along_dim", "gather", "diagonal", "rot90", "unfold"})
_NEAREST = ("nearest", "nearest-exact")


def moves(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Move the values, and the grid with them where it varies."""
    x = args[0]
    if not isinstance(x, QuantTensor) or any(isinstance(other, QuantTensor) for other in args[1:]):
        return NotImplemented
    return _with_grid(x, lambda tensor: function(tensor, *args[1:], **kwargs), per_channel=name not in _PER_TENSOR_ONLY)


def selects(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Select values; the scale may vary along axes that are not selected over."""
    x = args[0]
    if not isinstance(x, QuantTensor):
        return NotImplemented
    values = function(x.value, *args[1:], **kwargs)
    if _is_per_tensor(x):
        return _wrap_first(x, values)
    pooled = int(name[-2]) if name.endswith("d") else x.ndim
    if any(size != 1 for size in x.scale.shape[-pooled:]):
        return values
    return _wrap_first(x, values)


def pads(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Pad with zeros, which are a level, or with values of the tensor."""
    x = args[0]
    mode = kwargs.get("mode", args[2] if len(args) > 2 else "constant")
    fill = kwargs.get("value", args[3] if len(args) > 3 else None)
    zeros = mode == "constant" and not fill
    if not isinstance(x, QuantTensor) or not _is_per_tensor(x) or (mode == "constant" and not (zeros and x.zero_on_grid)):
        return NotImplemented
    return x.replace(value=function(x.value, *args[1:], **kwargs))


def rectifies(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Rectify: what is below zero becomes the level 0."""
    x = args[0]
    if not x.zero_on_grid:
        return NotImplemented
    return x.replace(value=function(x.value, *args[1:], **kwargs))


def drops(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Dropout: nothing in eval mode; in training it rescales, which leaves the grid."""
    training = kwargs.get("training", kwargs.get("train", args[2] if len(args) > 2 else name != "feature_dropout"))
    return NotImplemented if training else args[0]


def resizes(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Interpolate; nearest neighbours are values of the tensor."""
    x = args[0]
    mode = kwargs.get("mode", args[3] if len(args) > 3 else "nearest")
    if mode not in _NEAREST or (not _is_per_tensor(x) and any(size != 1 for size in x.scale.shape[2:])):
        return NotImplemented
    return x.replace(value=function(x.value, *args[1:], **kwargs))


def casts(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Convert value to another float dtype or device; scale and zero-point follow to the device in their own dtype."""
    x = args[0]
    if not isinstance(x, QuantTensor):
        return NotImplemented
    value = function(x.value, *(other.value if isinstance(other, QuantTensor) else other for other in args[1:]), **kwargs)
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    scale, zero_point, bit_width = (part.to(value.device) for part in (x.scale, x.zero_point, x.bit_width))
    return x.replace(value=value, scale=scale, zero_point=zero_point, bit_width=bit_width)


def _is_per_tensor(x: QuantTensor) -> bool:
    return x.scale.numel() == 1 and x.zero_point.numel() == 1


def _with_grid(x: QuantTensor, move: Callable[[Tensor], Any], *, per_channel: bool) -> Any:
    values = move(x.value)
    if _is_per_tensor(x):
        if isinstance(values, Tensor):
            return x.replace(value=values, **_scalar_grid(x))
        return type(values)(x.replace(value=part, **_scalar_grid(x)) for part in values)
    if not per_channel:
        return values
    scales, zero_points = (move(part.expand(x.shape)) for part in (x.scale, x.zero_point))
    if isinstance(values, Tensor):
        return x.replace(value=values, scale=_compact(scales), zero_point=_compact(zero_points))
    parts = zip(values, scales, zero_points, strict=True)
    return type(values)(x.replace(value=v, scale=_compact(s), zero_point=_compact(z)) for v, s, z in parts)


def _scalar_grid(x: QuantTensor) -> dict[str, Tensor]:
    """One scale fits any shape only without axes; the same tensors are kept where they have none."""
    if x.scale.dim() == 0 and x.zero_point.dim() == 0:
        return {}
    return {"scale": x.scale.reshape(()), "zero_point": x.zero_point.reshape(())}


def _compact(expanded: Tensor) -> Tensor:
    """Give axes along which a tensor is broadcast the size 1 again; told by their stride, never by their values."""
    for axis, stride in enumerate(expanded.stride()):
        if stride == 0 and expanded.shape[axis] > 1:
            expanded = expanded.narrow(axis, 0, 1)
    return expanded


def _wrap_first(x: QuantTensor, values: Any) -> Any:
    """Pooling may return indices as well."""
    if isinstance(values, Tensor):
        return x.replace(value=values, **(_scalar_grid(x) if _is_per_tensor(x) else {}))
    return (x.replace(value=values[0]), *values[1:])
