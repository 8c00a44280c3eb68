"""Sums and concatenations of values."""

from __future__ import annotations

from typing import Any

from torch import fx

from export_dpu.operation import Value, shape_of
from export_dpu.reading import Reading
from quant_core.export.arguments import arguments


def read_sum(reading: Reading, node: fx.Node) -> None:
    """Read ``aten.add``: a residual sum of two values of one shape."""
    given = arguments(node)
    operands = (given["self"], given["other"])
    one, other = (reading.operand(node, used) for used in operands)
    if given["alpha"] != 1:
        reading.refuse(
            node,
            f"alpha={given['alpha']}",
            f"{reading.target} adds two values as they are",
            "Multiply before the export.",
        )
    shapes = [shape_of(used) for used in operands if isinstance(used, fx.Node)]
    if len(set(shapes)) > 1:
        reading.refuse(
            node,
            f"operands of shapes {' and '.join(map(str, shapes))}",
            f"{reading.target} adds values of one shape",
            "Give both the same shape before they are added.",
        )
    positive = one.positive and other.positive
    reading.values[node] = reading.add(node, "Add", (one, other), reading.rounded(node), {}, {}, positive=positive)


def read_concatenation(reading: Reading, node: fx.Node) -> None:
    """Read ``aten.cat`` of values on one grid: a standard operator without quantization of its own."""
    tensors: Any = node.args[0]
    axis = int(arguments(node)["dim"]) % len(shape_of(node))
    known = [reading.values.get(used) for used in tensors]
    if all(value is not None and value.real for value in known):
        operands = [value for value in known if value is not None]
    else:
        operands = [reading.operand(node, used) for used in tensors]
    positions = {value.position for value in operands}
    if len(positions) > 1 and None not in positions:
        words = ", ".join(f"2^{-place}" for place in sorted(place for place in positions if place is not None))
        reading.refuse(
            node,
            f"values of the scales {words}",
            f"{reading.target} concatenates values of one scale",
            "Give all of them one quantizer: QuantCat with input_quant=Int8ActPerTensorFixedPoint, and no output_quant "
            "before it.",
        )
    first = operands[0] if operands else Value(name="", position=None)
    positive = all(value.positive for value in operands)
    reading.values[node] = reading.add(
        node, "Concat", tuple(operands), first.position, {"axis": axis}, positive=positive
    )
