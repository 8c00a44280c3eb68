"""A plan as the compiled library reads it."""

from __future__ import annotations

import ctypes
import functools
from itertools import groupby
from typing import NamedTuple

from quant_rnn.native.library import Op
from quant_rnn.native.plan import Instruction, Place, Plan
from quant_rnn.native.program import PRODUCTS, WHOLE


class Assembly(NamedTuple):
    """What is computed at each step.

    Attributes:
        ops: the operations of the library.
        places: of the numbers that they work on; the index of a place is the number of its slot.
        todo: in their order, the operations of the library from one number to another, and what torch computes.
    """

    ops: ctypes.Array[Op]
    places: list[Place]
    todo: list[range | Instruction]


@functools.lru_cache(maxsize=512)
def assembled(plan: Plan, *, multiplies: bool) -> Assembly:
    """Assemble a plan.

    Args:
        plan: of one step.
        multiplies: whether the library forms matrix products.
    """
    ops: list[Op] = []
    slots: dict[Place, int] = {}
    todo: list[range | Instruction] = []

    def slot(place: Place | None) -> int:
        return -1 if place is None else slots.setdefault(place, len(slots))

    def is_native(one: Instruction) -> bool:
        return one.kind not in WHOLE or (multiplies and one.kind in PRODUCTS)

    instructions = [one for part in plan.parts for one in part]
    for native, together in groupby(instructions, is_native):
        if not native:
            todo += together
            continue
        start = len(ops)
        ops += [Op(one.kind, slot(one.result), slot(one.a), slot(one.b), one.which, one.width) for one in together]
        todo.append(range(start, len(ops)))
    return Assembly((Op * len(ops))(*ops), list(slots), todo)
