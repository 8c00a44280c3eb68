"""Zeros around images: an operation of its own, or part of another one."""

from __future__ import annotations

from typing import Any

from torch import fx

from export_dpu.operation import Value, shape_of
from export_dpu.reading import Reading
from quant_core.export.arguments import arguments

Pads = tuple[int, int, int, int]
"""Top, left, bottom, right."""


def pad_before(reading: Reading, node: fx.Node, x: Value, shape: tuple[Any, ...], pads: Pads) -> Value:
    """``x`` with zeros around it, as a ``Pad`` before the operation of a node; ``x`` itself where there are none."""
    if not any(pads):
        return x
    top, left, bottom, right = pads
    padded = (*shape[:-2], shape[-2] + top + bottom, shape[-1] + left + right)
    return reading.add(node, "Pad", (x,), x.position, {"pads": pads}, {}, shape=padded, positive=x.positive)


def read_pad(reading: Reading, node: fx.Node) -> None:
    """Read ``aten.pad`` or ``aten.constant_pad_nd``."""
    given = arguments(node)
    used: Any = node.args[0]
    amounts, mode, number = [int(size) for size in given["pad"]], given.get("mode", "constant"), given["value"]
    left, right, top, bottom = [*amounts, 0, 0, 0, 0][:4]
    if mode != "constant" or number not in (None, 0, 0.0):
        what = f"mode={mode!r}" if mode != "constant" else f"the value {number:g}"
        _refuse(reading, node, what, "Pad with zeros.")
    elif min(amounts) < 0 or any(amounts[4:]) or len(shape_of(used)) != 4:
        _refuse(
            reading,
            node,
            f"pad={tuple(amounts)}",
            "Pad height and width of images, by 0 or more; crop before the export.",
        )
    if not any(amounts):
        reading.values[node] = reading.values.get(used, Value(name="", position=None))
        return
    x = reading.operand(node, used)
    landing = reading.landing(node)
    position = x.position if landing is None else landing
    pads = (top, left, bottom, right)
    reading.values[node] = reading.add(node, "Pad", (x,), position, {"pads": pads}, {}, positive=x.positive)


def _refuse(reading: Reading, node: fx.Node, actual: str, fix: str) -> None:
    reading.refuse(node, actual, f"{reading.target} puts zeros around images", fix)
