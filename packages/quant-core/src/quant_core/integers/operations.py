"""What the steps of a plan do, in int64 from the first quantizer to the outputs.

Every function takes the arguments of its step, with tensors in the place of references, and returns int64. Operations of
``aten`` run as they are on int64 tensors, after their zero-points are taken off; a few that only pick elements have no kernel
for integers in torch and run on float64, which carries integers below 2^53 unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor

from quant_core.integers.rescaling import Rescaling
from quant_core.ops.integer import quantize_levels

_PICKS: Final = ("max_pool1d", "adaptive_max_pool", "upsample_nearest", "replication_pad", "reflection_pad", "pad")


def quantize(
    input: Tensor, scale: Tensor, zero_point: Tensor, low: int, high: int, rounding_mode: str, rectified: bool = False
) -> Tensor:
    """``clamp(round(x / scale + zero_point), low, high)`` of floats: the same function that the model computes."""
    x = torch.relu(input) if rectified else input
    levels = quantize_levels(x, scale, zero_point, float(low), float(high), rounding_mode)
    return levels.to(torch.int64)


def binarize(input: Tensor, rectified: bool = False) -> Tensor:
    """``+1`` where a float is 0 or more, else ``−1``."""
    return torch.where((torch.relu(input) if rectified else input) >= 0, 1, -1)


def ternarize(input: Tensor, scale: Tensor, threshold: float, rectified: bool = False) -> Tensor:
    """``sign(x) · [|x| > threshold · scale]`` of floats."""
    x = torch.relu(input) if rectified else input
    return (torch.sign(x) * (x.abs() > threshold * scale)).to(torch.int64)


def rescale(
    input: Tensor,
    multiplier: Tensor,
    offset: Tensor,
    divisor: Tensor,
    rounding_mode: str,
    low: Tensor | int,
    high: Tensor | int,
) -> Tensor:
    """``clamp(round((q · multiplier + offset) / divisor), low, high)``."""
    rounded = Rescaling(multiplier=multiplier, offset=offset, divisor=divisor).rounded(input, rounding_mode)
    return torch.minimum(torch.maximum(rounded, torch.as_tensor(low)), torch.as_tensor(high))


def rescale_sign(input: Tensor, multiplier: Tensor, offset: Tensor, divisor: Tensor) -> Tensor:
    """``+1`` where ``q · multiplier + offset`` is 0 or more, else ``−1``."""
    return Rescaling(multiplier=multiplier, offset=offset, divisor=divisor).sign(input)


def rescale_ternary(input: Tensor, multiplier: Tensor, offset: Tensor, divisor: Tensor) -> Tensor:
    """``±1`` where ``|q · multiplier + offset| > divisor``, else 0."""
    return Rescaling(multiplier=multiplier, offset=offset, divisor=divisor).ternary(input)


def multiply(input: Tensor, zero_point: Tensor, factor: Tensor) -> Tensor:
    """``(q − zero_point) · factor``: to a grid that is finer by a whole number."""
    return (input - zero_point) * factor


def clamp(input: Tensor, low: int | None = None, high: int | None = None) -> Tensor:
    """``clamp(q, low, high)``."""
    return torch.clamp(input, low, high)


def sum_pool2d(input: Tensor, kernel_size: list[int], stride: list[int], padding: list[int]) -> Tensor:
    """The sum of each window of the last two axes, with zeros around them."""
    planes = input if input.dim() > 2 else input.unsqueeze(0)
    pooled = torch.nn.functional.avg_pool2d(planes, kernel_size, stride, padding, divisor_override=1)
    return pooled if input.dim() > 2 else pooled.squeeze(0)


def total(input: Tensor, dim: list[int], keepdim: bool) -> Tensor:
    """The sum along axes."""
    return input.sum(dim, keepdim=keepdim)


def look_up(input: Tensor, table: Tensor, low: int) -> Tensor:
    """``table[q − low]``."""
    return table[input - low]


OPERATIONS: Final[Mapping[str, Callable[..., Tensor]]] = MappingProxyType(
    {
        function.__name__: function
        for function in (
            quantize,
            binarize,
            ternarize,
            rescale,
            rescale_sign,
            rescale_ternary,
            multiply,
            clamp,
            sum_pool2d,
            total,
            look_up,
        )
    }
)
"""By name; a step whose op starts with ``aten.`` is one of torch."""


def run_aten(op: str, arguments: Mapping[str, Any]) -> Tensor:
    """An operation of torch by its name, such as ``aten.conv2d.default``."""
    given = dict(arguments)
    for name, zero_point in given.pop("zero_points", {}).items():
        given[name] = given[name] - zero_point
    _, packet, overload = op.split(".")
    function = getattr(getattr(torch.ops.aten, packet), overload)
    stated = [argument for argument in function._schema.arguments if not argument.kwarg_only]
    last = max((index for index, argument in enumerate(stated) if argument.name in given), default=-1)
    positional = [given.pop(argument.name, argument.default_value) for argument in stated[: last + 1]]
    if not packet.startswith(_PICKS):
        result: Tensor = function(*positional, **given)
        return result
    kinds = [value.dtype for value in positional if isinstance(value, Tensor)]
    floats = [value.to(torch.float64) if isinstance(value, Tensor) else value for value in positional]
    picked: Tensor = function(*floats, **given)
    return picked.to(kinds[0])
