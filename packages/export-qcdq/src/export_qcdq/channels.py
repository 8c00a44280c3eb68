"""Input channels of zeros, so that a convolution has a multiple of four of them.

For such numbers onnxruntime has kernels that read integers where they lie. For others, such as the three channels of an image,
it copies each window first. Zeros times zeros change no sum.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, fx

from export_qcdq.grid import kind_of
from quant_core.export import Program, Quantizer, is_quantizer
from quant_core.export.arguments import arguments
from quant_core.export.products import CONVOLUTIONS, Product, products
from quant_core.export.ranges import bounds

MULTIPLE: Final = 4


def missing_channels(program: Program) -> dict[str, int]:
    """How many input channels convolutions lack: by the names of their weights and of the quantizers that they read.

    It is for convolutions of one group and of 8 bits that read a quantizer directly, and whose operands nothing else reads.
    """
    quantizers = {quantizer.name: quantizer for quantizer in program.quantizers}
    weights = frozenset(name for name, quantizer in quantizers.items() if quantizer.integers is not None)
    found: dict[str, int] = {}
    takers: dict[fx.Node, set[fx.Node]] = {}
    for one in products(program.graph, weights):
        lacks = -one.weight.meta["val"].shape[1] % MULTIPLE
        if lacks and _takes(one, quantizers):
            found[one.weight.name] = found[one.x.name] = lacks
            takers.setdefault(one.x, set()).add(one.node)
    for x, convolutions in takers.items():
        if set(x.users) != convolutions:
            for name in (x.name, *(arguments(node)["weight"].name for node in convolutions)):
                del found[name]
    return found


def _takes(one: Product, quantizers: dict[str, Quantizer]) -> bool:
    if one.node.target not in CONVOLUTIONS or arguments(one.node)["groups"] != 1 or set(one.weight.users) != {one.node}:
        return False
    if not is_quantizer(one.x) or len(one.x.meta["val"].shape) != one.weight.meta["val"].dim():
        return False
    x, weight = quantizers[one.x.name], quantizers[one.weight.name]
    if x.op != "quant::int" or x.granularity != "per_tensor" or weight.granularity == "per_group":
        return False
    if torch.iinfo(kind_of(x)).bits > 8 or torch.iinfo(kind_of(weight)).bits > 8:
        return False
    low, high = bounds(x)
    assert x.zero_point is not None  # constant, as the check has found
    return low <= int(x.zero_point) <= high and weight.axis in (None, 0)


def sides(dimensions: int, count: int) -> list[int]:
    """How much is added on both sides of each axis, from the last one on, for more channels.

    >>> sides(4, 1)
    [0, 0, 0, 0, 0, 1]
    """
    return [0, 0] * (dimensions - 2) + [0, count]


def filled(integers: Tensor, zero_point: Tensor, count: int) -> Tensor:
    """The integers of a weight with more input channels, all of which stand for 0.

    >>> filled(torch.ones(1, 1, 1, dtype=torch.int8), torch.zeros(()), 2)
    tensor([[[1],
             [0],
             [0]]], dtype=torch.int8)
    """
    zeros = zero_point.to(integers.dtype).expand(integers.shape)[:, :1].repeat_interleave(count, 1)
    return torch.cat([integers, zeros], 1)
