"""Running a plan over all steps of a sequence."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from torch import Tensor

from quant_rnn.native import steps
from quant_rnn.native.assembly import assembled
from quant_rnn.native.by_torch import Factor, computed_by_torch
from quant_rnn.native.library import Call, Matrix, Model, Slot, Table
from quant_rnn.native.memory import Buffer, Memory, starts_of
from quant_rnn.native.plan import FULL, WORK, Instruction, Plan

_BLOCK: Final = 1024
"""Elements of a number that are computed one operation after the other; all numbers of a step then stay near."""


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


def run(
    plan: Plan,
    buffers: Mapping[str, Buffer],
    numbers: Numbers,
    factors: Sequence[Factor],
    batch: int,
    order: range,
    start: int,
) -> None:
    """Compute all steps.

    Args:
        plan: of one step.
        buffers: the memory that is read and written.
        numbers: of the quantizers.
        factors: what products are formed with.
        batch: how many rows there are.
        order: of the steps.
        start: the step before which there is none.
    """
    library = steps()
    assert library is not None
    assembly = assembled(plan, multiplies=library.multiply is not None)
    collects = any(call.collects for call in numbers.calls)
    rows = batch if collects else max(1, min(batch, _BLOCK // plan.width))
    slot, starts, some = rows * plan.width, starts_of(plan.full, batch), buffers["out"].tensor
    own = {
        WORK: Buffer(some.new_empty(1, plan.slots * slot)),
        FULL: Buffer(some.new_empty(1, starts[-1]), starts=starts),
    }
    memory = Memory({**buffers, **own}, batch, slot, len(order), start)
    factors = [Factor(matrix.contiguous(), bias if bias is None else bias.contiguous()) for matrix, bias in factors]
    arrays = (
        assembly.ops,
        (Slot * len(assembly.places))(*map(memory.described, assembly.places)),
        numbers.calls,
        (Table * len(numbers.tables))(*numbers.tables),
        (Matrix * len(factors))(*(Matrix(_address(matrix), _address(bias), *matrix.shape) for matrix, bias in factors)),
    )
    found = map(_address, (numbers.scales, numbers.found, numbers.at, numbers.sums, numbers.extra))
    per_step = len(numbers.calls) if numbers.scales.shape[0] > 1 else 0
    model = Model(*(ctypes.addressof(array) for array in arrays), library.multiply, *found, per_step, batch, start)

    def action(one: range | Instruction) -> Callable[[int], object]:
        if isinstance(one, range):
            return lambda t: library.run(model, one, rows, range(t, t + 1))
        return computed_by_torch(one, memory, factors)

    match assembly.todo:
        case [range() as ops]:
            library.run(model, ops, rows, order)
        case todo:
            actions = [action(one) for one in todo]
            for t in order:
                for act in actions:
                    act(t)


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
