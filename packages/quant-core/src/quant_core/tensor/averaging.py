"""Rules of sums and means, where an average of ``n`` integers is their sum on a grid ``n`` times as fine."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from torch import Tensor

from quant_core.tensor.grids import bits, constant_along, is_wide, with_value
from quant_core.tensor.keeping import argument, reduced
from quant_core.tensor.quant_tensor import QuantTensor

_POOLING: Final = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")


def averages(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``(Σ q − n·z) · s`` for a sum of ``n`` elements along ``dim``, ``(Σ q − n·z) · (s / n)`` for their mean."""
    x = args[0]
    if kwargs.get("dtype") is not None:
        return NotImplemented
    value = function(x.value, *args[1:], **kwargs)
    if not is_wide(x.value, value):
        return value
    total = reduced(x, value, args, kwargs)
    if not isinstance(total, QuantTensor) or x.value.numel() == 0:
        return value
    count = x.value.numel() // value.numel()
    return _of_sum(total, count, count if name == "mean" else None)


def average_pools(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``(Σ q − n·z) · (s / d)`` over windows of ``n`` elements each, along axes where the scale is one; ``d`` is mostly ``n``."""
    x = args[0]
    axes = int(name[-2])
    value = function(x.value, *args[1:], **kwargs)
    count = _adaptive_window(x, axes, args, kwargs) if name.startswith("adaptive") else _window(x, axes, args, kwargs)
    if count is None or not is_wide(x.value, value) or not constant_along(x, range(-axes, 0)):
        return value
    divisor = argument(args, kwargs, 6, "divisor_override", None) if axes > 1 else None
    if divisor is not None and divisor < 1:
        return value
    return _of_sum(with_value(x, value), count, divisor or count)


def _of_sum(x: QuantTensor, count: int, divisor: int | None) -> QuantTensor:
    """``x``, whose value is a sum of ``count`` elements, divided by ``divisor``, with its grid changed accordingly."""
    low, high = x.range()
    return x.replace(
        scale=x.scale if divisor is None else x.scale / divisor,
        zero_point=x.zero_point if x.symmetric else x.zero_point * count,
        bit_width=bits(low * count, high * count, signed=x.signed),
        narrow_range=False,
        origin=x.origin if divisor is None and x.symmetric else None,
    )


def _adaptive_window(x: QuantTensor, axes: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
    """How many elements each output averages; ``None`` where the windows differ in size."""
    wanted = args[1] if len(args) > 1 else kwargs["output_size"]
    sizes = [wanted] * axes if isinstance(wanted, int) else list(wanted)
    pairs = [(have, have if size is None else size) for have, size in zip(x.shape[-axes:], sizes, strict=True)]
    if any([size == 0 or have % size != 0 for have, size in pairs]):
        return None
    return math.prod([have // size for have, size in pairs])


def _window(x: QuantTensor, axes: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
    """How many elements each output averages; ``None`` where that is not the same everywhere."""
    given = {**dict(zip(_POOLING, args[1:], strict=False)), **kwargs}
    padding = given.get("padding", 0)
    padded = any(padding) if isinstance(padding, list | tuple) else bool(padding)
    if given.get("ceil_mode"):
        return None
    if padded and not (given.get("count_include_pad", True) and x.zero_on_grid):
        return None
    kernel = given["kernel_size"]
    if isinstance(kernel, Tensor):
        return None
    sizes = [kernel] * axes if isinstance(kernel, int) else list(kernel) * (axes if len(kernel) == 1 else 1)
    return math.prod(sizes)
