"""Quantizers and ReLUs: what of them is a node of its own, and what part of the operation before them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import fx

from export_dpu.operation import Value, position_of
from export_dpu.reading import Reading


def read_quantizer(reading: Reading, node: fx.Node) -> None:
    """Read an activation quantizer: it is the rounding at the end of the operation before it, or that of an input."""
    used: Any = node.args[0]
    x = reading.values.get(used, Value(name="", position=None))
    position = position_of(reading.quantizers[node.name])
    if not x.real and None not in (x.position, position) and x.position != position:
        reading.refuse(
            node,
            f"values that are rounded already, to steps of 2^{-(x.position or 0)} and here to 2^{-(position or 0)}",
            f"{reading.target} rounds the result of an operation once",
            "Remove one of the two quantizers: output_quant of the layer before, or this one (input_quant=None).",
        )
    reading.values[node] = replace(x, position=position, real=False)


def read_relu(reading: Reading, node: fx.Node) -> None:
    """Read a ReLU: it stays on the grid of its input, or goes to that of the quantizer behind it."""
    used: Any = node.args[0]
    x = reading.operand(node, used)
    landing = reading.landing(node)
    position = x.position if landing is None else landing
    if None not in (x.position, position) and x.position != position:
        reading.note(
            node,
            f"this ReLU rounds from steps of 2^{-(x.position or 0)} to 2^{-(position or 0)}; PyXIR reads no quantization of "
            "Relu. Leave output_quant of the layer before out, so that its result is rounded once, to the steps behind the ReLU",
        )
    reading.values[node] = reading.add(node, "Relu", (x,), position, {}, {}, positive=True)
