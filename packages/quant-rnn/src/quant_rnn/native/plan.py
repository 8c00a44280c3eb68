"""Where the numbers of a program are, and in which order it is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from quant_rnn.native.program import WHOLE, Kind, Row

WORK: Final = "work"
"""Memory of the native steps for a few rows of the batch, in slots that are used again."""
FULL: Final = "full"
"""Numbers of the whole batch, which are read outside of the part that gives them."""


class Place(NamedTuple):
    """Where a number is.

    Attributes:
        buffer: the name of the memory.
        segment: the number of its block; in ``WORK`` that of the slot.
        column: its first column within the block.
        pitch: how many columns the block has.
    """

    buffer: str
    segment: int = 0
    column: int = 0
    pitch: int = 0

    def columns(self, start: int) -> Place:
        """Where some of its columns are."""
        return self._replace(column=self.column + start)


class Instruction(NamedTuple):
    """An operation on places; ``which`` as in :class:`~quant_rnn.native.program.Row`."""

    kind: int
    result: Place
    a: Place
    b: Place | None
    which: int
    width: int


@dataclass(frozen=True, eq=False)
class Plan:
    """What is computed at each step.

    Attributes:
        parts: in their order, either several instructions for some rows of the batch at a time, or one for the whole batch.
        places: of all numbers.
        slots: how many slots of ``WORK`` are used.
        full: how many columns each block of ``FULL`` has.
        width: how many columns the widest number of the native steps has.
    """

    parts: list[list[Instruction]]
    places: dict[int, Place]
    slots: int
    full: list[int]
    width: int


def plan_of(
    rows: Sequence[Row], given: Mapping[int, Place], homes: Mapping[int, Place], collected: frozenset[int] = frozenset()
) -> Plan:
    """Plan the computation of all numbers with a home.

    Args:
        rows: the program.
        given: the numbers that are in memory before.
        homes: where results are to be.
        collected: the calls of quantizers whose scale is found.
    """
    order = _in_order(rows, given, homes)
    parts = _split(rows, order)
    places = {**given, **homes}
    full = _place_in_full(rows, parts, places)
    slots = _place_in_work(rows, parts, places)
    planned = []
    for part in parts:
        done = []
        for number in part:
            row = rows[number]
            kind = Kind.COLLECT if row.kind == Kind.QUANT and row.which in collected else row.kind
            second = None if row.b < 0 or rows[row.b].kind == Kind.BIAS else _found(rows, places, row.b)
            first = _found(rows, places, row.a)
            done.append(Instruction(int(kind), places[number], first, second, row.which, row.width))
        planned.append(done)
    for number, row in enumerate(rows):
        if row.kind == Kind.COLUMNS and _source(rows, number) in places:
            places[number] = _found(rows, places, number)
    widths = [one.width for part in planned for one in part if one.kind not in WHOLE]
    return Plan(planned, places, slots, full, max(widths, default=1))


def _source(rows: Sequence[Row], number: int) -> int:
    """The number that this one is a part of; itself where it is none."""
    while rows[number].kind == Kind.COLUMNS:
        number = rows[number].a
    return number


def _found(rows: Sequence[Row], places: Mapping[int, Place], number: int) -> Place:
    if number in places:
        return places[number]
    row = rows[number]
    assert row.kind == Kind.COLUMNS, f"{Kind(row.kind).name} {number} has no place"
    return _found(rows, places, row.a).columns(row.which)


def _operands(rows: Sequence[Row], number: int) -> list[int]:
    row = rows[number]
    return [_source(rows, operand) for operand in (row.a, row.b) if operand >= 0 and rows[operand].kind != Kind.BIAS]


def _in_order(rows: Sequence[Row], given: Mapping[int, Place], homes: Mapping[int, Place]) -> list[int]:
    """The rows that results need, so that as many as possible stand between two for the whole batch."""
    depths: dict[int, int] = {}

    def needed(number: int) -> int:
        """How many operations for the whole batch stand one behind the other before the number is known."""
        if number in given:
            return 0
        if number not in depths:
            depth = max((needed(operand) for operand in _operands(rows, number)), default=0)
            depths[number] = depth
        return depths[number] + (rows[number].kind in WHOLE)

    for number in homes:
        needed(number)
    done = [number for number in depths if rows[number].kind != Kind.JOINED]
    return sorted(done, key=lambda number: (depths[number], rows[number].kind in WHOLE, number))


def _split(rows: Sequence[Row], order: Sequence[int]) -> list[list[int]]:
    parts: list[list[int]] = []
    for number in order:
        if parts and rows[number].kind not in WHOLE and rows[parts[-1][-1]].kind not in WHOLE:
            parts[-1].append(number)
        else:
            parts.append([number])
    return parts


def _place_in_full(rows: Sequence[Row], parts: Sequence[Sequence[int]], places: dict[int, Place]) -> list[int]:
    """Places for what is not only used in the part that gives it; how many columns each of them has."""
    part_of = {number: index for index, part in enumerate(parts) for number in part}
    widths: list[int] = []
    for index, part in enumerate(parts):
        for number in part:
            for used in (*_operands(rows, number), number):
                inside = part_of.get(used) == index and rows[number].kind not in WHOLE
                if used in places or inside:
                    continue
                places[used] = Place(FULL, len(widths), 0, rows[used].width)
                widths.append(rows[used].width)
    return widths


def _place_in_work(rows: Sequence[Row], parts: Sequence[Sequence[int]], places: dict[int, Place]) -> int:
    """Slots for the others, used again as soon as their number is not needed any more; how many there are."""
    slots = 0
    for part in parts:
        last = {used: number for number in part for used in _operands(rows, number)}
        free = list(range(slots))
        for number in part:
            for used in set(_operands(rows, number)):
                if last[used] == number and places[used].buffer == WORK:
                    free.append(places[used].segment)
            if number in places:
                continue
            if not free:
                free.append(slots)
                slots += 1
            places[number] = Place(WORK, free.pop(), 0, rows[number].width)
    return slots
