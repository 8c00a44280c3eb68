"""What the operation of all steps works on: quantizers, tables and memory as the machine takes them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from quant_rnn.native.layout import FIELDS, Layout
from quant_rnn.native.library import Call, Table
from quant_rnn.native.machine import Buffer
from quant_rnn.native.plan import Place
from quant_rnn.native.program import Kind, decoded
from quant_rnn.native.tables import FUNCTIONS, levels_of, table_of


def rows_of_scales(length: int, fields: Sequence[float]) -> int:
    """How many rows of scales there are."""
    return length if any(fields[4::FIELDS]) else 1


def input_width(code: Sequence[int]) -> int:
    """How many columns the projected input has."""
    return next(row.width for row in decoded(code).rows if row.kind == Kind.INPUT)


def calls_of(fields: Sequence[float]) -> ctypes.Array[Call]:
    """The calls of quantizers for the native steps."""
    rows = [fields[start : start + FIELDS] for start in range(0, len(fields), FIELDS)]
    return (Call * len(rows))(*(Call(*row[:4], int(row[4])) for row in rows))


def biases_of(layout: Layout, biases: Sequence[Tensor]) -> dict[int, Tensor]:
    """By the index of the matrix."""
    return {number: biases[product.bias] for number, product in enumerate(layout.products) if product.bias >= 0}


def tables_of(layout: Layout, scales: Tensor, fields: Sequence[float]) -> Tensor:
    """The functions that are tables: value, slope and error of each level, ``(tables, 3, levels)``."""
    found = scales.new_zeros(len(layout.lookups), 3, layout.levels)
    for rows, (function, front, behind) in zip(found, layout.lookups, strict=True):
        levels = levels_of(scales[front], *fields[front * FIELDS : front * FIELDS + 2])
        bounds = fields[behind * FIELDS : behind * FIELDS + 2]
        for row, part in zip(rows, table_of(FUNCTIONS[Kind(function)], levels, scales[behind], *bounds), strict=True):
            row[: len(levels)] = part
    return found


def pointers_of(layout: Layout, tables: Tensor) -> list[Table]:
    """The tables for the native steps."""
    return [
        Table(*(part.data_ptr() for part in table), front, behind)
        for table, (_, front, behind) in zip(tables, layout.lookups, strict=True)
    ]


def buffers_of(
    projected: Tensor, out: Tensor, kept: Tensor, states: Sequence[Tensor], starts: Sequence[int], reverse: bool
) -> dict[str, Buffer]:
    """What both passes read, by name: the states before a step are those after the step before it."""
    buffers = {"input": Buffer(projected), "out": Buffer(out), "kept": Buffer(kept, starts=starts)}
    for index, state in enumerate(states):
        before = buffers["kept" if index else "out"]
        buffers[f"before{index}"] = before._replace(shift=1 if reverse else -1, first=state)
    return buffers


def factor_of(
    place: Place,
    features: int,
    out: Tensor,
    kept: Tensor,
    states: Sequence[Tensor],
    starts: Sequence[int],
    reverse: bool,
) -> Tensor:
    """What a matrix was multiplied with at all steps, ``(T·B, features)``."""
    length, batch = out.shape[:2]
    if place.buffer == "kept":
        return kept[:, starts[place.segment] :][:, : batch * features].reshape(length * batch, features)
    assert place.buffer == "before0", "a matrix is multiplied with the hidden state, or with what is kept"
    first = states[0][None]
    return torch.cat([out[1:], first] if reverse else [first, out[:-1]]).flatten(0, 1)
