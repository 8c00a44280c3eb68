"""Sums of products: convolutions, linear layers and matrix products, with their biases."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import torch
from torch import fx

from quant_core.export.products import TRANSPOSED, Product
from quant_core.export.ranges import sums_of_products
from quant_core.integers.bench import Bench, Cannot, named_arguments, reference
from quant_core.integers.carried import Carried, along, float32_of, fractions


def lower_product(bench: Bench, found: Product) -> None:
    """``Σ (x − z_x)(w − z_w) + b`` with a constant weight: an accumulator at the scale ``s_x · s_w``."""
    node: Any = found.node
    x, weight = bench.plain(node, bench.carried(found.x)), bench.carried(found.weight)
    lows, highs = _ranges(bench, found, x, weight)
    scale = _scale(found, x, weight)
    arguments = named_arguments(node)
    data, constant = list(arguments)[:2]
    arguments |= {data: reference(x), constant: reference(weight)}
    zero_points = {}
    if x.zero_point != (0,):
        zero_points[data] = bench.zero_point(node, x)
    if any(weight.zero_point):
        zero_points[constant] = bench.zero_point(node, weight)
    offset = [Fraction(0)]
    if found.bias is not None:
        added, offset = _bias(bench, found.bias, scale)
        arguments["bias"] = None if added is None else reference(added)
        if added is not None:
            integers = bench.plan.arrays[added.source].flatten().tolist()
            lows = [low + one for low, one in zip(lows, integers, strict=True)]
            highs = [high + one for high, one in zip(highs, integers, strict=True)]
    arguments = {name: _listed(argument) for name, argument in arguments.items()}
    if zero_points:
        arguments["zero_points"] = zero_points
    held = Carried(
        source="",
        scale=tuple(scale),
        offset=tuple(offset),
        axis=_channels(found),
        low=tuple(lows),
        high=tuple(highs),
    )
    source = bench.step(node, str(node.target), arguments, held.least, held.most)
    part = bench.program.where(node).part
    bench.array(part("accumulator_scale"), along([float(one) for one in scale], held.axis, torch.float64))
    bench.known[node] = replace(held, source=source)


def lower_matrix_product(bench: Bench, node: fx.Node) -> None:
    """The product of two matrices that both depend on the inputs."""
    one, other = (bench.plain(node, bench.carried(operand)) for operand in node.args[:2])
    operand: Any = node.args[0]
    terms = operand.meta["val"].shape[-1]
    if not isinstance(terms, int):
        raise Cannot(
            "sums of a number of terms that varies",
            "integers needs to know how large a sum can be",
            "Leave dynamic_shapes (--dynamic-batch) out.",
        )
    _multiply(bench, node, one, other, terms)


def lower_elementwise_product(bench: Bench, node: fx.Node) -> None:
    """The product of two values, element by element."""
    one, other = (bench.plain(node, bench.carried(operand)) for operand in node.args[:2])
    _multiply(bench, node, one, other, 1)


def _multiply(bench: Bench, node: fx.Node, one: Carried, other: Carried, terms: int) -> None:
    names = list(named_arguments(node))[:2]
    corners = [a * b * terms for a in one.from_zero for b in other.from_zero]
    arguments: dict[str, Any] = {name: reference(held) for name, held in zip(names, (one, other), strict=True)}
    arguments["zero_points"] = {
        name: bench.zero_point(node, held) for name, held in zip(names, (one, other), strict=True)
    }
    scale = (_rounded(one.scale[0], other.scale[0]),)
    held = Carried(source="", scale=scale, low=(min(corners),), high=(max(corners),))
    source = bench.step(node, str(node.target), arguments, held.least, held.most)
    bench.known[node] = replace(held, source=source)


def _ranges(bench: Bench, found: Product, x: Carried, weight: Carried) -> tuple[list[int], list[int]]:
    """The smallest and the largest sum of each output channel."""
    rank = len(found.weight.meta["val"].shape)
    if weight.axis is not None and weight.axis != found.output_axis - rank:
        raise Cannot(
            f"a weight with a scale for each element of axis {weight.axis + rank}",
            f"integers takes weight scales per tensor and per output channel, axis {found.output_axis}",
            "Set weight_scaling_per_output_channel=True on this layer, or quantize the weight per tensor.",
        )
    integers = bench.quantizers[found.weight.name].integers
    assert integers is not None
    zero_point = along(weight.zero_point, weight.axis, torch.int64)
    low, high = sums_of_products(*x.from_zero, integers.to(torch.int64) - zero_point, found.output_axis)
    groups = _groups(found)
    return low.tolist() * groups, high.tolist() * groups


def _scale(found: Product, x: Carried, weight: Carried) -> list[Fraction]:
    """The scale of the sums, in float32 as the layer computes it."""
    scales = [_rounded(x.scale[0], one) for one in weight.scale]
    return scales[:1] if len(set(scales)) == 1 else scales * _groups(found)


def _bias(bench: Bench, node: fx.Node, scale: list[Fraction]) -> tuple[Carried | None, list[Fraction]]:
    """A bias on the grid of the sums, to be added to them; or what it adds in units."""
    constant = bench.program.constant(node)
    if constant is not None:
        return None, list(fractions(constant))
    held = bench.carried(node)
    count = max(len(held.scale), len(scale))
    same = all(held.scale[i % len(held.scale)] == scale[i % len(scale)] for i in range(count))
    if same and not any(held.zero_point):
        return held, [Fraction(0)]
    integers = bench.plan.arrays[held.source].flatten().tolist()
    values = [
        (one - held.zero_point[i % len(held.zero_point)]) * held.scale[i % len(held.scale)]
        for i, one in enumerate(integers)
    ]
    return None, values


def _rounded(one: Fraction, other: Fraction) -> Fraction:
    """The product of two scales, rounded to float32 where both are numbers of float32."""
    exact = one * other
    return float32_of(exact) if one == float32_of(one) and other == float32_of(other) else exact


def _channels(found: Product) -> int:
    """The axis of the output channels, counted from the end of the result."""
    return 1 - len(found.weight.meta["val"].shape) if found.is_convolution else -1


def _groups(found: Product) -> int:
    """How often the output channels of the weight are repeated: those of a transposed convolution, for each group."""
    if found.node.target not in TRANSPOSED:
        return 1
    channels = found.node.meta["val"].shape[_channels(found)]
    return int(channels) // int(found.weight.meta["val"].shape[1])


def _listed(argument: Any) -> Any:
    return list(argument) if isinstance(argument, list | tuple) else argument
