"""Applying an optional quantizer, and joining what it gave at several steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from quant_core.proxies import QuantProxy
from quant_core.tensor import QuantTensor
from quant_nn.layer import value_of

MaybeQuantized = Tensor | QuantTensor


def quantized(quantizer: QuantProxy | None, x: Tensor) -> MaybeQuantized:
    """``x`` as the quantizer gives it; as it is where there is none."""
    return x if quantizer is None else quantizer(x)


def value(quantizer: QuantProxy | None, x: Tensor) -> Tensor:
    """The value alone of :func:`quantized`."""
    return value_of(quantized(quantizer, x))


def with_value(like: MaybeQuantized, x: Tensor) -> MaybeQuantized:
    """``x`` on the grid of another tensor; as it is where that one has none."""
    return like.replace(value=x) if isinstance(like, QuantTensor) else x


def on_grid(quantizer: QuantProxy | None, x: Tensor) -> MaybeQuantized:
    """What a quantizer with a stored scale has already rounded, with that scale."""
    if quantizer is None or not quantizer.is_quant_enabled:
        return x
    return quantizer(x.new_zeros(())).replace(value=x)  # type: ignore[no-any-return]


def stack(parts: Sequence[MaybeQuantized]) -> MaybeQuantized:
    """Stack along a new first axis, on the common grid of the parts or on one grid for each of them.

    While a quantizer collects statistics each step has a scale of its own; the scale is then of shape ``(T, 1, …)``.
    """
    values = torch.stack([value_of(part) for part in parts])
    last = _last_grid(parts)
    if last is None or _is_common(parts):
        return values if last is None else last.replace(value=values)
    found = _all_quantized(parts)
    scales = torch.stack([_spread(part.scale, part) for part in found])
    zero_points = torch.stack([_spread(part.zero_point, part) for part in found])
    return last.replace(value=values, scale=scales, zero_point=zero_points, origin=None)


def concatenate(parts: Sequence[MaybeQuantized], axis: int) -> MaybeQuantized:
    """Join along an axis, on the common grid of the parts or on one grid for each of them."""
    if len(parts) == 1:
        return parts[0]
    values = torch.cat([value_of(part) for part in parts], dim=axis)
    last = _last_grid(parts)
    if last is None or _is_common(parts):
        return values if last is None else last.replace(value=values)
    scales = _joined_grids([(part.scale, part) for part in _all_quantized(parts)], axis)
    zero_points = _joined_grids([(part.zero_point, part) for part in _all_quantized(parts)], axis)
    return last.replace(value=values, scale=scales, zero_point=zero_points, origin=None)


def joined_steps(x: MaybeQuantized) -> MaybeQuantized:
    """Steps ``(T, B, …)`` one after the other, ``(T·B, …)``, with a scale for each where each step has one."""
    values = value_of(x).flatten(0, 1)
    if not isinstance(x, QuantTensor) or x.origin is not None:
        return with_value(x, values)
    grids = [grid.expand(*x.shape[:2], *grid.shape[2:]).flatten(0, 1) for grid in (x.scale, x.zero_point)]
    return x.replace(value=values, scale=grids[0], zero_point=grids[1], origin=None)


def scale_of(x: MaybeQuantized) -> Tensor | None:
    """One scale for all of a quantized tensor: the mean of those of its steps while statistics are collected."""
    return x.scale.mean() if isinstance(x, QuantTensor) else None


def _all_quantized(parts: Sequence[MaybeQuantized]) -> list[QuantTensor]:
    return [part for part in parts if isinstance(part, QuantTensor)]


def _last_grid(parts: Sequence[MaybeQuantized]) -> QuantTensor | None:
    """The last part, where all of them are quantized."""
    found = _all_quantized(parts)
    return found[-1] if len(found) == len(parts) else None


def _is_common(parts: Sequence[MaybeQuantized]) -> bool:
    """Whether all grids come from one quantizer that stores its scale."""
    origins = [part.origin for part in _all_quantized(parts)]
    return origins[0] is not None and all(origin is origins[0] for origin in origins)


def _spread(grid: Tensor, part: QuantTensor) -> Tensor:
    """A scale with as many axes as its tensor."""
    return grid.reshape((1,) * (part.ndim - grid.dim()) + tuple(grid.shape))


def _joined_grids(grids: Sequence[tuple[Tensor, QuantTensor]], axis: int) -> Tensor:
    """Scales side by side, each as long as its tensor along one axis."""
    spread = [_spread(grid, part) for grid, part in grids]
    along = axis % spread[0].dim()
    others = torch.broadcast_shapes(*((*grid.shape[:along], 1, *grid.shape[along + 1 :]) for grid in spread))
    pieces = []
    for grid, (_, part) in zip(spread, grids, strict=True):
        pieces.append(grid.expand(*others[:along], part.shape[axis], *others[along + 1 :]))
    return torch.cat(pieces, dim=axis)
