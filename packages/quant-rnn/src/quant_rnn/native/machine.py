"""Running a plan over all steps of a sequence."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor

from quant_rnn.native import steps
from quant_rnn.native.library import Call, Model, Op, Slot, Table
from quant_rnn.native.plan import FULL, WORK, Instruction, Place, Plan
from quant_rnn.native.program import Kind
from quant_rnn.native.tables import FUNCTIONS

_BLOCK: Final = 1024
"""Elements of a number that are computed one operation after the other; all numbers of a step then stay near."""

_ALIGNED: Final = 16
"""Elements of 64 bytes, at a multiple of which torch places a tensor."""


class Buffer(NamedTuple):
    """Memory of several numbers at all steps.

    Attributes:
        tensor: ``(T, …)``, or ``(1, …)`` for what is not kept.
        shift: added to the number of the step, which is the first index.
        mask: the bits of that number which count.
        first: what stands for it before the first step, ``(B, width)``.
        starts: where its blocks start in each step.
    """

    tensor: Tensor
    shift: int = 0
    mask: int = -1
    first: Tensor | None = None
    starts: Sequence[int] = (0,)


class Numbers(NamedTuple):
    """What the calls of quantizers know and find; one row for each step, or one for all.

    Attributes:
        calls: the quantizers.
        scales: their scales, ``(T or 1, calls)``.
        found: their statistics, of the same shape.
        at: the elements that these are of.
        sums: gradients of the scales that are given, ``(calls,)`` in double precision.
        extra: gradients of the scales from elsewhere, ``(T, calls)`` in double precision.
        tables: the functions.
    """

    calls: ctypes.Array[Call]
    scales: Tensor
    found: Tensor
    at: Tensor
    sums: Tensor | None = None
    extra: Tensor | None = None
    tables: Sequence[Table] = ()


def starts_of(widths: Sequence[int], batch: int) -> list[int]:
    """Where blocks of so many columns start, and behind them where the last one ends.

    Products of matrices are rounded otherwise where memory is not aligned.

    >>> starts_of([3, 5], 5)
    [0, 16, 48]
    """
    starts = [0]
    for width in widths:
        starts.append(starts[-1] + (width * batch + _ALIGNED - 1) // _ALIGNED * _ALIGNED)
    return starts


def run(
    plan: Plan,
    buffers: Mapping[str, Buffer],
    numbers: Numbers,
    matrices: Sequence[Tensor],
    biases: Mapping[int, Tensor],
    batch: int,
    order: range,
    start: int,
) -> None:
    """Compute all steps.

    Args:
        plan: of one step.
        buffers: the memory that is read and written.
        numbers: of the quantizers.
        matrices: ``(width, features)``.
        biases: what is added to a product, by the index of its matrix, where that is no number.
        batch: how many rows there are.
        order: of the steps.
        start: the step before which there is none.
    """
    collects = any(call.collects for call in numbers.calls)
    rows = batch if collects else max(1, min(batch, _BLOCK // plan.width))
    some = matrices[0] if matrices else buffers["input"].tensor
    work, starts = some.new_empty(1, plan.slots * rows * plan.width), starts_of(plan.full, batch)
    full = Buffer(some.new_empty(1, starts[-1]), starts=starts)
    machine = _Machine(plan, {**buffers, WORK: Buffer(work), FULL: full}, numbers, batch, rows, order, start)
    todo = [machine.action(part, matrices, biases) for part in plan.parts]
    for t in order:
        for action in todo:
            action(t)


class _Machine:
    def __init__(
        self,
        plan: Plan,
        buffers: Mapping[str, Buffer],
        numbers: Numbers,
        batch: int,
        rows: int,
        order: range,
        start: int,
    ) -> None:
        library = steps()
        assert library is not None
        self.library, self.plan, self.buffers = library, plan, buffers
        self.batch, self.rows, self.order, self.start = batch, rows, order, start
        self.slots: dict[Place, int] = {}
        native = [one for part in plan.parts for one in part if one.kind < Kind.LINEAR]
        ops = [
            Op(one.kind, self._slot(one.result), self._slot(one.a), self._second(one), one.which, one.width)
            for one in native
        ]
        per_step = len(numbers.calls) if numbers.scales.shape[0] > 1 else 0
        self.kept = (
            (Op * len(ops))(*ops),
            (Slot * len(self.slots))(*(self._described(place) for place in self.slots)),
            (Table * len(numbers.tables))(*numbers.tables),
            numbers,
        )
        addresses = [ctypes.addressof(part) for part in (*self.kept[:2], numbers.calls, self.kept[2])]
        pointers = [
            None if part is None else part.data_ptr()
            for part in (numbers.scales, numbers.found, numbers.at, numbers.sums, numbers.extra)
        ]
        self.model = Model(*addresses, *pointers, per_step, batch, start)
        self.done = 0

    def action(
        self, part: Sequence[Instruction], matrices: Sequence[Tensor], biases: Mapping[int, Tensor]
    ) -> Callable[[int], object]:
        """What a part of the plan does at a step."""
        one = part[0]
        if one.kind < Kind.LINEAR:
            first, last = self.done, self.done + len(part)
            self.done = last
            return self.library.run(self.model, first, last, self.rows)
        results = self._tensors(one.result, one.width)
        if one.kind in FUNCTIONS:
            function, operands = FUNCTIONS[Kind(one.kind)], self._tensors(one.a, one.width)
            return lambda t: function(operands[t], out=results[t])
        matrix = matrices[one.which]
        if one.kind == Kind.LINEAR:
            matrix = matrix.t()
        factors = self._tensors(one.a, matrix.shape[0])
        if one.b is not None:
            others = self._tensors(one.b, one.width)
            return lambda t: torch.addmm(others[t], factors[t], matrix, out=results[t])
        if one.kind == Kind.LINEAR and one.which in biases:
            bias = biases[one.which]
            return lambda t: torch.addmm(bias, factors[t], matrix, out=results[t])
        return lambda t: torch.mm(factors[t], matrix, out=results[t])

    def _second(self, one: Instruction) -> int:
        return -1 if one.b is None else self._slot(one.b)

    def _slot(self, place: Place) -> int:
        return self.slots.setdefault(place, len(self.slots))

    def _described(self, place: Place) -> Slot:
        buffer = self.buffers[place.buffer]
        tensor = buffer.tensor
        if place.buffer == WORK:
            start = tensor.data_ptr() + 4 * place.segment * self.rows * self.plan.width
            return Slot(start, None, 0, 0, -1, place.pitch, 0)
        start = tensor.data_ptr() + 4 * self._offset(place)
        first = None if buffer.first is None else buffer.first.data_ptr() + 4 * place.column
        step = 0 if place.buffer == FULL else tensor.stride(0)
        return Slot(start, first, step, buffer.shift, buffer.mask, place.pitch, place.pitch)

    def _offset(self, place: Place) -> int:
        return self.buffers[place.buffer].starts[place.segment] + place.column

    def _tensors(self, place: Place, width: int) -> list[Tensor]:
        """The number at each step."""
        buffer = self.buffers[place.buffer]
        tensor, length = buffer.tensor, len(self.order)
        shape, strides = (tensor.shape[0], self.batch, width), (tensor.stride(0), place.pitch, 1)
        found = tensor.as_strided(shape, strides, tensor.storage_offset() + self._offset(place)).unbind(0)
        if place.buffer == FULL:
            return [found[0]] * length
        if buffer.first is None:
            return list(found) if buffer.mask < 0 else [found[(t + buffer.shift) & buffer.mask] for t in range(length)]
        start = buffer.first[:, place.column : place.column + width]
        return [start if t == self.start else found[t + buffer.shift] for t in range(length)]
