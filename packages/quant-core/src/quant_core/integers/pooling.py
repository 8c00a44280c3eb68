"""Means of windows and along axes: sums of integers at a part of the scale."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from torch import fx

from quant_core.export.arguments import each
from quant_core.integers.bench import Bench, Cannot, named_arguments, reference
from quant_core.integers.carried import Carried, float32_of


def average_windows(bench: Bench, node: fx.Node) -> None:
    """The mean of ``n`` integers is their sum at ``1 / n`` of the scale."""
    given = named_arguments(node)
    width = 1 if "1d" in str(node.target) else 2
    kernel, stride, padding = _windows(node, given, width)
    operand: Any = node.args[0]
    held = bench.plain(node, bench.carried(operand))
    if held.zero_point != (0,) and any(padding):
        held = bench.in_units_of(node, held, held.scale[0])
    flat = [1] * (2 - width)
    sizes = {"kernel_size": flat + kernel, "stride": flat + stride, "padding": [0] * (2 - width) + padding}
    count = given.get("divisor_override") or math.prod(kernel)
    _averaged(bench, node, held, "sum_pool2d", sizes, terms=math.prod(kernel), count=count)


def average(bench: Bench, node: fx.Node) -> None:
    """The mean or the sum along axes."""
    operand: Any = node.args[0]
    held = bench.plain(node, bench.carried(operand))
    shape = operand.meta["val"].shape
    given = named_arguments(node)
    axes: Any = given.get("dim")
    axes = list(range(len(shape))) if axes is None else list(axes)
    terms = math.prod(_fixed(shape[axis]) for axis in axes)
    options = {"dim": axes, "keepdim": bool(given.get("keepdim", False))}
    count = terms if "mean" in str(node.target) else 1
    _averaged(bench, node, held, "total", options, terms=terms, count=count)


def _averaged(
    bench: Bench, node: fx.Node, held: Carried, op: str, options: dict[str, Any], *, terms: int, count: int
) -> None:
    exact = held.scale[0] / count
    scale = float32_of(exact) if held.scale[0] == float32_of(held.scale[0]) else exact
    low, high = sorted((held.least * terms, held.most * terms))
    low, high = (min(0, low), max(0, high)) if any(options.get("padding", ())) else (low, high)
    zero = held.zero_point[0] * terms
    result = Carried(source="", scale=(scale,), zero_point=(zero,), low=(low,), high=(high,))
    source = bench.step(node, op, {"input": reference(held)} | options, low, high)
    bench.known[node] = replace(result, source=source)


def _windows(node: fx.Node, given: dict[str, Any], width: int) -> tuple[list[int], list[int], list[int]]:
    operand: Any = node.args[0]
    if "adaptive" in str(node.target):
        sizes = [_fixed(size) for size in operand.meta["val"].shape[-width:]]
        wanted = [_fixed(size) for size in node.meta["val"].shape[-width:]]
        if any(size % part for size, part in zip(sizes, wanted, strict=True)):
            raise Cannot(
                f"windows of different sizes ({'x'.join(map(str, sizes))} to {'x'.join(map(str, wanted))})",
                "integers averages windows of one size",
                "Use an output size that divides the input.",
            )
        kernel = [size // part for size, part in zip(sizes, wanted, strict=True)]
        return kernel, kernel, [0] * width
    kernel = each(given["kernel_size"], width)
    stride = each(given.get("stride") or kernel, width)
    padding = each(given.get("padding", 0), width)
    if given.get("ceil_mode") or (any(padding) and given.get("count_include_pad") is False):
        raise Cannot(
            "windows that hold different numbers of elements",
            "integers averages windows of one size",
            "Use no ceil_mode, and padding that is counted.",
        )
    return kernel, stride, padding


def _fixed(size: Any) -> int:
    if isinstance(size, int):
        return size
    raise Cannot(
        "an average over a size that varies", "integers divides by a fixed number", "Leave dynamic_shapes out."
    )
