"""Operations on integers that are no sums of products: moves, choices, joins, sums, factors, bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import fx

from quant_core.integers.bench import Bench, Cannot, Raw, named_arguments, reference
from quant_core.integers.capabilities import (
    BOUNDS,
    CHOICES,
    FUNCTIONS,
    JOINS,
    MATRIX_PRODUCTS,
    MOVES,
    PADS,
    TOTALS,
    WINDOWS,
)
from quant_core.integers.carried import Carried, number
from quant_core.integers.multiplying import lower_elementwise_product, lower_matrix_product
from quant_core.integers.normalizing import normalize
from quant_core.integers.pooling import average, average_windows
from quant_core.integers.tables import tabulate

Rule = Callable[[Bench, fx.Node], None]
_aten = torch.ops.aten


def move(bench: Bench, node: fx.Node) -> None:
    """An operation that moves elements moves those of the one scale that all have."""
    operand: Any = node.args[0]
    raw = bench.known.get(operand)
    if isinstance(raw, Raw):
        name = _first(node)
        source = bench.aten(
            node, Carried(source="", scale=(Fraction(1),), low=(0,), high=(0,)), {name: {"value": raw.source}}
        )
        bench.known[node] = replace(raw, source=source.source)
        return
    held = bench.carried(operand)
    single = max(map(len, (held.scale, held.zero_point, held.offset))) == 1
    held = held if single else bench.plain(node, held)
    low, high = (held.least,), (held.most,)
    bench.known[node] = bench.aten(node, replace(held, low=low, high=high, axis=None), {_first(node): reference(held)})


def choose(bench: Bench, node: fx.Node) -> None:
    """An operation that picks among the elements of a channel keeps everything."""
    held = bench.carried(node.args[0])
    if any(scale < 0 for scale in held.scale):
        raise Cannot(
            "values that a batch norm has multiplied by a negative number",
            "integers picks the largest integer, which is then the smallest value",
            "Put the pool behind the quantizer that comes next.",
        )
    bench.known[node] = bench.aten(node, held, {_first(node): reference(held)})


def pad(bench: Bench, node: fx.Node) -> None:
    """Around zeros stand those of the grid: the zero-point."""
    held = bench.plain(node, bench.carried(node.args[0]))
    given = named_arguments(node)
    if given.get("mode", "constant") == "constant" and given.get("value") not in (None, 0, 0.0):
        raise Cannot(
            f"padding with {given['value']}",
            "integers pads with zeros, which are a level of every grid",
            "Pad with zeros, or before the quantizer.",
        )
    (zero,) = held.zero_point
    filling = {"value": zero} if given.get("mode", "constant") == "constant" else {}
    wide = replace(held, low=(min(held.least, zero),), high=(max(held.most, zero),), axis=None)
    bench.known[node] = bench.aten(node, wide, {_first(node): reference(held)} | filling)


def join(bench: Bench, node: fx.Node) -> None:
    """Tensors one after the other, on one grid."""
    operands: Any = node.args[0]
    values = bench.aligned(node, [bench.carried(operand) for operand in operands])
    low, high = min(value.least for value in values), max(value.most for value in values)
    joined = replace(values[0], low=(low,), high=(high,), axis=None)
    bench.known[node] = bench.aten(node, joined, {"tensors": [reference(value) for value in values]})


def add(bench: Bench, node: fx.Node) -> None:
    """The sum of two values on one grid, or in the largest unit that divides both scales."""
    one, other = bench.aligned(node, [bench.carried(operand) for operand in node.args[:2]])
    zero = one.zero_point[0] + other.zero_point[0]
    low, high = one.least + other.least, one.most + other.most
    _combine(bench, node, one, other, zero, low, high)


def subtract(bench: Bench, node: fx.Node) -> None:
    """The difference of two values, as :func:`add`."""
    one, other = bench.aligned(node, [bench.carried(operand) for operand in node.args[:2]])
    zero = one.zero_point[0] - other.zero_point[0]
    low, high = one.least - other.most, one.most - other.least
    _combine(bench, node, one, other, zero, low, high)


def _combine(bench: Bench, node: fx.Node, one: Carried, other: Carried, zero: int, low: int, high: int) -> None:
    if any(value != 1 for value in node.kwargs.values()):
        raise Cannot("a factor alpha", "integers adds and subtracts without one", "Multiply by the factor before.")
    held = replace(one, zero_point=(zero,), low=(low,), high=(high,), axis=None)
    bench.known[node] = bench.aten(node, held, {"self": reference(one), "other": reference(other)})


def multiply(bench: Bench, node: fx.Node) -> None:
    """A product with a positive number changes the scale alone; one of two values multiplies integers."""
    factor = number(node.args[1])
    if factor is None:
        lower_elementwise_product(bench, node)
    else:
        _scale(bench, node, factor)


def divide(bench: Bench, node: fx.Node) -> None:
    """By a positive number."""
    divisor = number(node.args[1])
    if not divisor:
        raise Cannot("a quotient of two values", "integers divides by numbers", "Multiply by a quantized inverse.")
    _scale(bench, node, 1 / divisor)


def _scale(bench: Bench, node: fx.Node, factor: Fraction) -> None:
    if factor <= 0:
        raise Cannot(
            f"the factor {float(factor):g}",
            "integers multiplies scales by positive numbers",
            "Put the sign into the weight of the layer before.",
        )
    held = bench.carried(node.args[0])
    low, high = (None if bound is None else bound * factor for bound in held.between)
    scale, offset = (tuple(x * factor for x in column) for column in (held.scale, held.offset))
    bench.known[node] = replace(held, scale=scale, offset=offset, between=(low, high))


def bound(bench: Bench, node: fx.Node) -> None:
    """A ReLU or another pair of bounds: left to the next quantizer, whose levels are bounded in its place."""
    low, high = _bounds(node)
    operand: Any = node.args[0]
    known = bench.known.get(operand)
    if isinstance(known, Raw) and high is None and low == 0:
        bench.known[node] = replace(known, rectified=True)
        return
    held = bench.carried(operand)
    before, after = held.between
    low = before if low is None else low if before is None else max(low, before)
    high = after if high is None else high if after is None else min(high, after)
    bench.known[node] = replace(held, between=(low, high))


def _bounds(node: fx.Node) -> tuple[Fraction | None, Fraction | None]:
    if node.target in (_aten.relu.default, _aten.relu_.default):
        return Fraction(0), None
    if node.target is _aten.relu6.default:
        return Fraction(0), Fraction(6)
    given = named_arguments(node)
    if node.target in (_aten.hardtanh.default, _aten.hardtanh_.default):
        return number(given.get("min_val", -1)), number(given.get("max_val", 1))
    return number(given.get("min")), number(given.get("max"))


def look_up_rows(bench: Bench, node: fx.Node) -> None:
    """Rows of a table of integers."""
    table, indices = bench.carried(node.args[0]), node.args[1]
    raw: Any = bench.known.get(indices) if isinstance(indices, fx.Node) else None
    if not isinstance(raw, Raw) or not table.is_plain:
        raise Cannot(
            "a table with a scale for each row" if not table.is_plain else "indices that are computed",
            "integers looks up rows of one scale, by indices that are inputs",
            "Quantize the weight of the embedding per tensor.",
        )
    options = {"weight": reference(table), "indices": {"value": raw.source}}
    bench.known[node] = bench.aten(node, table, options)


def _first(node: fx.Node) -> str:
    target: Any = node.target
    return str(target._schema.arguments[0].name)


RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    dict.fromkeys(MOVES, move)
    | dict.fromkeys(CHOICES, choose)
    | dict.fromkeys(BOUNDS, bound)
    | dict.fromkeys(FUNCTIONS, tabulate)
    | dict.fromkeys(WINDOWS, average_windows)
    | dict.fromkeys(TOTALS, average)
    | dict.fromkeys(PADS, pad)
    | dict.fromkeys(JOINS, join)
    | dict.fromkeys(MATRIX_PRODUCTS, lower_matrix_product)
    | {
        "add.Tensor": add,
        "batch_norm.default": normalize,
        "sub.Tensor": subtract,
        "mul.Tensor": multiply,
        "div.Tensor": divide,
        "embedding.default": look_up_rows,
    }
)
"""What is done with each operation of ``aten`` that is no product with a constant, by its name."""
