"""Rules of operations that leave elements in their place of the grid, or put the level 0 beside them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from torch import Tensor

from quant_core.tensor.grids import aligned, constant_along, plain, with_value
from quant_core.tensor.quant_tensor import QuantTensor

_NEAREST: Final = ("nearest", "nearest-exact")
_DROPOUTS: Final = ("dropout", "dropout1d", "dropout2d", "dropout3d")


def argument(args: tuple[Any, ...], kwargs: dict[str, Any], position: int, name: str, default: Any) -> Any:
    """An argument that may be given by position or by name."""
    return args[position] if len(args) > position else kwargs.get(name, default)


def copies(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The same values on the same grid; ``detach`` cuts the gradient of the grid, too."""
    x = args[0]
    value = function(x.value, *args[1:], **kwargs)
    if name != "detach":
        return x.replace(value=value)
    return x.replace(
        value=value, scale=x.scale.detach(), zero_point=x.zero_point.detach(), bit_width=x.bit_width.detach()
    )


def casts(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Convert the value to a float dtype or device; the grid goes to the device in its own dtype."""
    x = args[0]
    value = function(x.value, *plain(args[1:]), **plain(kwargs))
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    scale, zero_point, bit_width = (part.to(value.device) for part in (x.scale, x.zero_point, x.bit_width))
    return x.replace(value=value, scale=scale, zero_point=zero_point, bit_width=bit_width)


def pools(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Take the largest of neighbours along axes where the scale is one; indices are a plain tensor."""
    x = args[0]
    values = function(x.value, *args[1:], **kwargs)
    axes = next(int(letter) for letter in name if letter.isdigit())  # adaptive_max_pool2d
    if not constant_along(x, range(-axes, 0)):
        return values
    return with_value(x, values) if isinstance(values, Tensor) else (with_value(x, values[0]), *values[1:])


def extremes(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The largest or smallest along axes where the scale is one."""
    x = args[0]
    return reduced(x, function(x.value, *args[1:], **kwargs), args, kwargs)


def reduced(x: QuantTensor, value: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``x`` with the value of a reduction over ``dim``; a plain tensor where its grid varies along ``dim``."""
    if x.per_tensor:
        return with_value(x, value)
    dim = argument(args, kwargs, 1, "dim", None)
    axes = (dim,) if isinstance(dim, int) else tuple(dim or range(x.ndim))
    if not constant_along(x, axes):
        return value
    keep = argument(args, kwargs, 2, "keepdim", False)
    scale, zero_point = (
        part if keep else part.squeeze(axes) for part in (aligned(x.scale, x.ndim), aligned(x.zero_point, x.ndim))
    )
    return x.replace(value=value, scale=scale, zero_point=zero_point, origin=None)


def rectifies(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What is below zero becomes the level 0."""
    x = args[0]
    return x.replace(value=function(x.value, *args[1:], **kwargs)) if x.zero_on_grid else NotImplemented


def blanks(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Some elements become the level 0, in place."""
    x = args[0]
    filled = name == "masked_fill"
    fill = argument(args, kwargs, 2, "value", None) if filled else 0
    if not x.zero_on_grid or not _is_zero(fill):
        return NotImplemented
    return with_value(x, function(x.value, *plain(args[1:]), **plain(kwargs)))


def pads(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Add zeros, which are a level, or values of the tensor, along axes where the scale is one."""
    x, widths = args[0], argument(args, kwargs, 1, "pad", ())
    mode = "constant" if name == "constant_pad_nd" else argument(args, kwargs, 2, "mode", "constant")
    fill = argument(args, kwargs, 2 if name == "constant_pad_nd" else 3, "value", None)
    if mode == "constant" and not (x.zero_on_grid and (fill is None or _is_zero(fill))):
        return NotImplemented
    if not constant_along(x, range(-(len(widths) // 2), 0)):
        return NotImplemented
    return with_value(x, function(x.value, *args[1:], **kwargs))


def drops(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Dropout: nothing in eval mode; in training zeros among values at ``1 / (1 − p)`` times the scale."""
    x = args[0]
    on_by_default = name in _DROPOUTS
    training = argument(args, kwargs, 2, "train" if "train" in kwargs else "training", on_by_default)
    if not training:
        return x
    p = argument(args, kwargs, 1, "p", 0.5)
    if name not in (*_DROPOUTS, "feature_dropout") or not x.zero_on_grid or not 0 <= p < 1:
        return NotImplemented
    return x.replace(value=function(x.value, *args[1:], **kwargs), scale=x.scale / (1 - p), origin=None)


def resizes(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Nearest neighbours are values of the tensor; other modes compute new ones."""
    x = args[0]
    mode = "nearest" if name == "upsample_nearest" else argument(args, kwargs, 3, "mode", "nearest")
    if mode not in _NEAREST or not constant_along(x, range(2, x.ndim)):
        return NotImplemented
    return with_value(x, function(x.value, *args[1:], **kwargs))


def unfolds(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Patches as columns, with zeros around the edges, of a per-tensor grid."""
    x = args[0]
    if not (x.zero_on_grid and x.per_tensor):
        return NotImplemented
    return with_value(x, function(x.value, *args[1:], **kwargs))


def _is_zero(fill: Any) -> bool:
    return isinstance(fill, int | float) and fill == 0
