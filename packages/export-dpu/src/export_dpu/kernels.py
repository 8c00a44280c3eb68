"""What each operator computes with integers, before its result is shifted, rounded and saturated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from export_dpu.averaging import average_factor
from quant_core.errors import ArtifactError

Attributes = Mapping[str, Any]
FINEST: Final = 30
"""By how many bits a bias may be finer than the accumulator: both fit into 63 bits then."""


@dataclass(frozen=True, kw_only=True)
class Sum:
    """An exact result: ``tensor · 2^−position``, int64."""

    tensor: Tensor
    position: int


def _convolution(x: Sequence[Tensor], at: Sequence[int], constants: Sequence[Tensor], given: Attributes) -> Sum:
    top, left, bottom, right = given.get("pads", (0, 0, 0, 0))
    padded = F.pad(x[0].to(torch.float64), (left, right, top, bottom))
    weight, options = constants[0].to(torch.float64), {"stride": given["strides"], "dilation": given["dilations"]}
    total = F.conv2d(padded, weight, groups=given["group"], **options)
    return _biased(total, at[0], constants, given, (1, -1, 1, 1))


def _transposed(x: Sequence[Tensor], at: Sequence[int], constants: Sequence[Tensor], given: Attributes) -> Sum:
    weight, options = constants[0].to(torch.float64), {"stride": given["strides"], "dilation": given["dilations"]}
    padding = given.get("pads", (0, 0, 0, 0))[:2]
    total = F.conv_transpose2d(x[0].to(torch.float64), weight, padding=padding, groups=given["group"], **options)
    return _biased(total, at[0], constants, given, (1, -1, 1, 1))


def _matrix_product(x: Sequence[Tensor], at: Sequence[int], constants: Sequence[Tensor], given: Attributes) -> Sum:
    weight = constants[0].to(torch.float64)
    total = x[0].to(torch.float64) @ (weight.t() if given.get("transB", 0) else weight)
    return _biased(total, at[0], constants, given, (1, -1))


def _biased(total: Tensor, at: int, constants: Sequence[Tensor], given: Attributes, shape: tuple[int, ...]) -> Sum:
    """The sum of products, and the bias on the finer of the two grids."""
    position = at + given["vai_quant_weights"][1]
    if len(constants) < 2:
        return Sum(tensor=total.to(torch.int64), position=position)
    fine = given["vai_quant_biases"][1]
    common = max(position, fine)
    if common - position > FINEST:
        raise ArtifactError(
            f"a bias is {common - position} bits finer than its accumulator",
            why=f"sums are computed with up to {FINEST} bits more than products have",
            fix="Set bias=False on the layer if its bias is zero, or give bias_scaling_min_val a larger value.",
        )
    bias = constants[1].to(torch.int64).reshape(shape) << min(common - fine, FINEST)
    return Sum(tensor=(total.to(torch.int64) << (common - position)) + bias, position=common)


def _rectified(x: Sequence[Tensor], at: Sequence[int], constants: Sequence[Tensor], given: Attributes) -> Sum:
    return Sum(tensor=x[0].clamp(min=0), position=at[0])


def _zeros_around(x: Sequence[Tensor], at: Sequence[int], constants: Sequence[Tensor], given: Attributes) -> Sum:
    top, left, bottom, right = given["pads"]
    return Sum(tensor=F.pad(x[0], (left, right, top, bottom)), position=at[0])


def _maximum(x: Sequence[Tensor], at: Sequence[int], constants: Sequence[Tensor], given: Attributes) -> Sum:
    padding = given.get("pads", (0, 0, 0, 0))[:2]
    largest = F.max_pool2d(x[0].to(torch.float64), given["kernel_shape"], given["strides"], padding)
    return Sum(tensor=largest.to(torch.int64), position=at[0])


def _average(x: Sequence[Tensor], at: Sequence[int], constants: Sequence[Tensor], given: Attributes) -> Sum:
    height, width = given["kernel_shape"]
    multiplier, bits = average_factor((height, width))
    padding = given.get("pads", (0, 0, 0, 0))[:2]
    total = F.avg_pool2d(x[0].to(torch.float64), (height, width), given["strides"], padding, divisor_override=1)
    return Sum(tensor=total.to(torch.int64) * multiplier, position=at[0] + bits)


def _whole_average(x: Sequence[Tensor], at: Sequence[int], constants: Sequence[Tensor], given: Attributes) -> Sum:
    window = {"kernel_shape": tuple(x[0].shape[-2:]), "strides": (1, 1)}
    return _average(x, at, constants, window)


def _sum(x: Sequence[Tensor], at: Sequence[int], constants: Sequence[Tensor], given: Attributes) -> Sum:
    common = max(at)
    one, other = (tensor << (common - position) for tensor, position in zip(x, at, strict=True))
    return Sum(tensor=one + other, position=common)


KERNELS: Final[Mapping[str, Callable[[Sequence[Tensor], Sequence[int], Sequence[Tensor], Attributes], Sum]]] = {
    "Add": _sum,
    "AveragePool": _average,
    "Conv": _convolution,
    "ConvTranspose": _transposed,
    "Gemm": _matrix_product,
    "GlobalAveragePool": _whole_average,
    "MaxPool": _maximum,
    "Pad": _zeros_around,
    "Relu": _rectified,
}
"""Operator → exact result, from integers, their positions, constants and attributes."""

MOVES: Final[Mapping[str, Callable[[Sequence[Tensor], Sequence[Tensor], Attributes], Tensor]]] = {
    "Concat": lambda x, constants, given: torch.cat(list(x), given["axis"]),
    "Flatten": lambda x, constants, given: x[0].flatten(given.get("axis", 1)),
    "Identity": lambda x, constants, given: x[0],
    "Reshape": lambda x, constants, given: x[0].reshape(constants[0].tolist()),
    "Transpose": lambda x, constants, given: x[0].permute(given["perm"]),
}
"""Standard operator → its result, of integers and real numbers alike."""
