"""What of a step is kept for the backward pass, and where its gradients go."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final, NamedTuple

from quant_rnn.native.gradient import Backward, backward_of
from quant_rnn.native.plan import Place, Plan, plan_of
from quant_rnn.native.program import WHOLE, Kind, Lookup, Program, Row, decoded, with_tables
from quant_rnn.steady import MOST_LEVELS

FIELDS: Final = 5
"""Of each call of a quantizer: the smallest integer and the largest one, what a threshold is divided by, the smallest threshold,
and whether it collects."""


class Product(NamedTuple):
    """A matrix product of a step.

    Attributes:
        factor: the place of what the matrix is multiplied with; its buffer is ``before…`` for a state.
        features: how many columns that has.
        gradient: the place of the gradient of the product.
        width: how many columns the product has.
        bias: the index of the bias that is added, −1 for none.
    """

    factor: Place
    features: int
    gradient: Place
    width: int
    bias: int


class Layout(NamedTuple):
    """The plans of both passes, and their memory.

    Attributes:
        lookups: the functions that are tables.
        levels: how long the longest table is.
        forward: the plan of a step.
        backward: that of its gradients.
        kept: how many columns each block has that is kept for each step, besides the output.
        after: the places of the states after a step.
        widths: how many columns each of them has.
        products: the matrix products, in the order of their matrices.
        reads_input: whether the backward pass needs the projected input.
    """

    lookups: list[Lookup]
    levels: int
    forward: Plan
    backward: Plan
    kept: list[int]
    after: list[Place]
    widths: list[int]
    products: list[Product]
    reads_input: bool


@functools.lru_cache(maxsize=256)
def layout_of(code: tuple[int, ...], fields: tuple[float, ...]) -> Layout:
    """Plan a recorded step for quantizers that collect or do not.

    Args:
        code: the program, see :func:`~quant_rnn.native.program.encoded`.
        fields: see :data:`FIELDS`.
    """
    calls = [fields[start : start + FIELDS] for start in range(0, len(fields), FIELDS)]
    collected = frozenset(number for number, call in enumerate(calls) if call[4])
    settled = [number for number in range(len(calls)) if number not in collected]
    tabled = [number for number in settled if calls[number][1] - calls[number][0] < MOST_LEVELS]
    program, lookups = with_tables(decoded(code), settled, tabled)
    given, homes, kept = _forward_places(program)
    forward = plan_of(program.rows, given, homes, collected)
    back = backward_of(program)
    known = {**given, **homes, **_given_gradients(back.rows)}
    backward = plan_of(back.rows, known, _gradient_places(program, back))
    return Layout(
        lookups,
        max((int(calls[one.front][1] - calls[one.front][0]) + 1 for one in lookups), default=0),
        forward,
        backward,
        kept,
        [homes[after] for after in program.nexts],
        [program.rows[after].width for after in program.nexts],
        _products(program, back, forward, backward),
        any("input" in (place.buffer for place in (one.a, one.b) if place) for part in backward.parts for one in part),
    )


def _forward_places(program: Program) -> tuple[dict[int, Place], dict[int, Place], list[int]]:
    """What is in memory before a step, what is kept of it, and how many columns that has besides the output."""
    rows, homes, widths = program.rows, dict[int, Place](), list[int]()

    def keep(number: int) -> None:
        homes[number] = Place("kept", len(widths), 0, rows[number].width)
        widths.append(rows[number].width)

    output, *others = program.nexts
    homes[output] = Place("out", pitch=rows[output].width)
    for number in others:
        keep(number)
    given: dict[int, Place] = {}
    for number, row in enumerate(rows):
        if row.kind == Kind.INPUT:
            given[number] = Place("input", pitch=row.width)
        elif row.kind == Kind.STATE:
            given[number] = homes[program.nexts[row.which]]._replace(buffer=f"before{row.which}")
    for number in _worth_keeping(program):
        if number not in homes and number not in given:
            keep(number)
    return given, homes, widths


def _worth_keeping(program: Program) -> list[int]:
    """What is computed for the whole batch, and what a gradient of a matrix is computed from."""
    used = _used(program)
    found = []
    for number in used:
        row = program.rows[number]
        if row.kind == Kind.LINEAR:
            found += [row.a, number]
        elif row.kind in WHOLE:
            found.append(number)
    return found


def _used(program: Program) -> list[int]:
    seen: set[int] = set()
    todo = list(program.nexts)
    while todo:
        number = todo.pop()
        if number not in seen:
            seen.add(number)
            todo += [operand for operand in program.rows[number][1:3] if operand >= 0]
    return sorted(seen)


def _given_gradients(rows: Sequence[Row]) -> dict[int, Place]:
    names = {Kind.CARRY: "carry", Kind.GIVEN: "given"}
    return {
        number: Place(names[Kind(row.kind)] + (str(row.which) if row.kind == Kind.CARRY else ""), pitch=row.width)
        for number, row in enumerate(rows)
        if row.kind in names
    }


def _gradient_places(program: Program, back: Backward) -> dict[int, Place]:
    """Where the gradients of states, of the projected input and of matrix products go."""
    homes: dict[int, Place] = {}

    def put(gradient: int, place: Place) -> None:
        if homes.get(gradient, place) == place and back.rows[gradient].kind not in (Kind.CARRY, Kind.GIVEN):
            homes[gradient] = place
        else:
            back.rows.append(Row(int(Kind.COPY), gradient, -1, -1, back.rows[gradient].width))
            homes[len(back.rows) - 1] = place

    for number, row in enumerate(program.rows):
        if number not in back.gradients:
            continue
        gradient, of_input = back.gradients[number], _part_of_input(program, number)
        if row.kind == Kind.STATE:
            put(gradient, Place(f"carried{row.which}", pitch=row.width))
        elif row.kind == Kind.LINEAR:
            added = None if row.b < 0 else _part_of_input(program, row.b)
            place = Place(f"for_linear{row.which}", pitch=row.width) if added is None else added
            homes[gradient] = place
            for start, part in back.parts.get(number, ()):
                put(part, place.columns(start))
        elif of_input is not None and row.kind == Kind.COLUMNS:
            put(gradient, of_input)
    return homes


def _part_of_input(program: Program, number: int) -> Place | None:
    row = program.rows[number]
    if row.kind == Kind.INPUT:
        return Place("for_input", pitch=row.width)
    if row.kind == Kind.COLUMNS and program.rows[row.a].kind == Kind.INPUT:
        return Place("for_input", 0, row.which, program.rows[row.a].width)
    return None


def _products(program: Program, back: Backward, forward: Plan, backward: Plan) -> list[Product]:
    found = []
    for number in _used(program):
        kind, a, b, index, width = program.rows[number]
        if kind == Kind.LINEAR:
            bias = program.rows[b].which if b >= 0 and program.rows[b].kind == Kind.BIAS else -1
            gradient = backward.places[back.gradients[number]]
            found.append((index, Product(forward.places[a], program.rows[a].width, gradient, width, bias)))
    return [product for _, product in sorted(found)]
