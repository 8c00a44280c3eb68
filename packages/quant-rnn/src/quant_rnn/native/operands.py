"""What the operation of all steps works on: quantizers, tables and memory as the machine takes them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from quant_rnn.native.by_torch import Factor
from quant_rnn.native.layout import FIELDS, Layout
from quant_rnn.native.library import Call, Table
from quant_rnn.native.memory import Buffer
from quant_rnn.native.plan import Place
from quant_rnn.native.program import Kind, decoded


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


def factors_of(layout: Layout, matrices: Sequence[Tensor], biases: Sequence[Tensor]) -> list[Factor]:
    """What products are formed with, each matrix with its bias."""
    return [
        Factor(matrix, biases[product.bias] if product.bias >= 0 else None)
        for matrix, product in zip(matrices, layout.products, strict=True)
    ]


def ranges_of(fields: Sequence[float], like: Tensor) -> Tensor:
    """The smallest and the largest integer of each call, ``(calls, 2)``."""
    return like.new_tensor(fields).view(len(fields) // FIELDS, FIELDS)[:, :2]


def pointers_of(layout: Layout, tables: Tensor) -> list[Table]:
    """The tables for the native steps."""
    address, step = tables.data_ptr(), tables.stride(1) * tables.element_size()
    starts = range(address, address + len(layout.lookups) * 3 * step, 3 * step)
    return [
        Table(start, start + step, start + 2 * step, front, behind)
        for start, (_, front, behind) in zip(starts, layout.lookups, strict=True)
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
