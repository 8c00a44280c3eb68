"""Rules of operations that move, repeat, drop or join elements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor

from quant_core.tensor.grids import moved, plain, same_grid, with_value
from quant_core.tensor.quant_tensor import QuantTensor

_ALONG: Final[dict[str, Callable[..., Any]]] = {
    "view": Tensor.reshape,
    "view_as": Tensor.reshape_as,
    "take_along_dim": lambda grid, *indices, **options: torch.take_along_dim(grid.contiguous(), *indices, **options),
}
"""A grid that is broadcast has strides that a view refuses, where the value has none of them."""


def moves(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Move the values, and the grid with them where it varies."""
    x, rest, options = args[0], plain(args[1:]), plain(kwargs)
    values: Any = function(x.value, *rest, **options)
    single = isinstance(values, Tensor)
    if single and values.dtype != x.dtype:  # view(dtype) reads the same bytes as something else
        return values
    if x.per_tensor:
        return with_value(x, values) if single else type(values)([with_value(x, value) for value in values])
    along = _ALONG.get(name, function)
    scale, zero_point = (moved(part, x.shape, lambda t: along(t, *rest, **options)) for part in (x.scale, x.zero_point))
    if single:
        return x.replace(value=values, scale=scale, zero_point=zero_point, origin=None)
    parts = zip(values, scale, zero_point, strict=True)
    return type(values)([x.replace(value=v, scale=s, zero_point=z, origin=None) for v, s, z in parts])


def joins(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Put tensors of one grid together; a per-channel grid is put together likewise."""
    parts = args[0]
    if not isinstance(parts, list | tuple) or not parts:
        return NotImplemented
    if not all(isinstance(part, QuantTensor) for part in parts) or not _one_grid(parts):
        return NotImplemented
    value = function([part.value for part in parts], *args[1:], **kwargs)
    first = parts[0]
    if first.per_tensor:
        return with_value(first, value, **_widest(parts))
    scale, zero_point = (
        function([getattr(part, field).expand(part.shape) for part in parts], *args[1:], **kwargs)
        for field in ("scale", "zero_point")
    )
    return first.replace(value=value, scale=scale, zero_point=zero_point, origin=None, **_widest(parts))


def chooses(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Choose, element by element, from two tensors of one grid."""
    position = {"torch.where": 0, "Tensor.where": 1}.get(name)  # of the condition
    choices = [arg for place, arg in enumerate(args) if place != position]
    if len(choices) != 2 or kwargs or not all(isinstance(choice, QuantTensor) for choice in choices):
        return NotImplemented
    if not _one_grid(choices):
        return NotImplemented
    return with_value(choices[0], function(*plain(args)), **_widest(choices))


def _one_grid(parts: Any) -> bool:
    return all(same_grid(parts[0], part) and part.dtype == parts[0].dtype for part in parts[1:])


def _widest(parts: Any) -> dict[str, Any]:
    """The range that holds those of all parts, which have one sign; what holds for all holds for the result."""
    widest = parts[0].bit_width
    for part in parts[1:]:
        widest = widest if part.bit_width is widest else torch.maximum(widest, part.bit_width)
    flags = ("narrow_range", "symmetric", "zero_on_grid")
    return {"bit_width": widest, **{flag: all([getattr(part, flag) for part in parts]) for flag in flags}}
