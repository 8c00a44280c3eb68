"""Operations that change the shape of values only: standard operators with constant shapes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from export_dpu.operation import Value, shape_of
from export_dpu.reading import Reading
from quant_core.export.arguments import arguments


def read_flatten(reading: Reading, node: fx.Node) -> None:
    """Read ``aten.flatten``: ``Flatten`` where it leaves a batch of rows, ``Reshape`` otherwise."""
    used: Any = node.args[0]
    before, after = shape_of(used), shape_of(node)
    if len(after) == 2 and after[0] == before[0]:
        x = _operand(reading, used)
        reading.values[node] = reading.add(node, "Flatten", (x,), x.position, {"axis": 1}, positive=x.positive)
    else:
        read_reshape(reading, node)


def read_reshape(reading: Reading, node: fx.Node) -> None:
    """Read a change of shape: ``Reshape`` to a constant shape, of any batch where the batch stays the first axis."""
    used: Any = node.args[0]
    x, before, after = _operand(reading, used), shape_of(used), shape_of(node)
    if before == after:
        reading.values[node] = x
        return
    sizes = list(after)
    if before[:1] == after[:1]:
        sizes[0] = -1
    if not all(isinstance(size, int) for size in (*sizes, math.prod(before))):
        reading.values[node] = Value(name="", position=None)  # refused for the shape that varies
        return
    path = reading.program.where(node).part("shape")
    shape = reading.constant(path, torch.tensor(sizes))
    reading.values[node] = reading.add(node, "Reshape", (x, shape), x.position, positive=x.positive)


def read_permutation(reading: Reading, node: fx.Node) -> None:
    """Read ``aten.permute`` and ``aten.transpose``: ``Transpose``."""
    used: Any = node.args[0]
    x, rank, given = _operand(reading, used), len(shape_of(used)), arguments(node)
    if "dims" in given:
        order = [int(axis) % rank for axis in given["dims"]]
    else:
        order = list(range(rank))
        one, other = int(given["dim0"]) % rank, int(given["dim1"]) % rank
        order[one], order[other] = order[other], order[one]
    reading.values[node] = reading.add(node, "Transpose", (x,), x.position, {"perm": order}, positive=x.positive)


def read_copy(reading: Reading, node: fx.Node) -> None:
    """Read an operation that gives its operand."""
    reading.values[node] = _operand(reading, node.args[0])


def _operand(reading: Reading, used: Any) -> Value:
    """The operand of an operation that takes what it moves, on a grid or not."""
    return reading.values.get(used, Value(name="", position=None))
