"""A step of a recurrent layer as a program: a list of operations on numbers ``(B, width)``, each of which is computed once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Final, NamedTuple


class Kind(IntEnum):
    """What an operation does with the numbers ``a`` and ``b``; those of ``steps.c`` come first, in its order."""

    QUANT = 0
    COLLECT = 1
    LOOKUP = 2
    MUL = 3
    ADD = 4
    COMPLEMENT = 5
    NEGATE = 6
    COPY = 7
    QUANT_BACK = 8
    LOOKUP_BACK = 9
    SIGMOID_BACK = 10
    TANH_BACK = 11
    RELU = 12
    RELU_BACK = 13
    LINEAR = 14
    LINEAR_BACK = 15
    # by torch, between two calls of the native steps
    SIGMOID = 20
    TANH = 21
    # in memory before the step begins
    STATE = 30
    INPUT = 31
    BIAS = 32
    CARRY = 33
    GIVEN = 34
    # parts of others, and others side by side
    COLUMNS = 40
    JOINED = 41


FUNCTIONS: Final = (Kind.SIGMOID, Kind.TANH, Kind.RELU)
PRODUCTS: Final = (Kind.LINEAR, Kind.LINEAR_BACK)
WHOLE: Final = (*PRODUCTS, Kind.SIGMOID, Kind.TANH)
"""Computed for the whole batch at once."""


class Row(NamedTuple):
    """One operation.

    Attributes:
        kind: what it does.
        a: the row of its operand, −1 for none.
        b: that of the second one.
        which: which quantizer call, table, matrix, bias or state it is about, or the first column.
        width: how many columns the result has.
    """

    kind: int
    a: int = -1
    b: int = -1
    which: int = -1
    width: int = 0


class Program(NamedTuple):
    """The rows of a step, and which of them are the states after it; the first of those is the output.

    >>> program = Program((Row(Kind.STATE, which=0, width=3), Row(Kind.NEGATE, 0, width=3)), (1,))
    >>> decoded(encoded(program)) == program
    True
    """

    rows: tuple[Row, ...]
    nexts: tuple[int, ...]


class Lookup(NamedTuple):
    """A function between two quantizers that are settled, as one table.

    Attributes:
        function: which function.
        front: the call of the quantizer in front of it.
        behind: the call of the quantizer behind it.
    """

    function: int
    front: int
    behind: int


def encoded(program: Program) -> list[int]:
    """The program as numbers, for an operator of torch."""
    return [len(program.nexts), *program.nexts, *(int(number) for row in program.rows for number in row)]


def decoded(code: Sequence[int]) -> Program:
    """From numbers."""
    start, size = 1 + code[0], len(Row._fields)
    rows = tuple(Row(*code[at : at + size]) for at in range(start, len(code), size))
    return Program(rows, tuple(code[1:start]))


def with_tables(program: Program, settled: Iterable[int], tabled: Iterable[int]) -> tuple[Program, list[Lookup]]:
    """Functions between two settled quantizers as tables.

    Without a quantizer behind the function torch computes it: its last bit depends on where in memory an element is.

    Args:
        program: of a step.
        settled: the calls of quantizers whose scale is known.
        tabled: those of them that give few numbers, so that a table may stand behind them.
    """
    rows, lookups = list(program.rows), list[Lookup]()
    fixed, few = set(settled), set(tabled)
    users: dict[int, list[int]] = {place: [-1] for place in program.nexts}
    for place, row in enumerate(rows):
        for operand in (row.a, row.b):
            if operand >= 0:
                users.setdefault(operand, []).append(place)
    for place, row in enumerate(program.rows):
        front = rows[row.a]
        if row.kind not in FUNCTIONS or front.kind != Kind.QUANT or front.which not in few:
            continue
        user, *others = users[place]
        if not others and user >= 0 and rows[user].kind == Kind.QUANT and rows[user].which in fixed:
            lookup = Lookup(row.kind, front.which, rows[user].which)
            rows[user] = Row(Kind.LOOKUP, front.a, -1, len(lookups), row.width)
            lookups.append(lookup)
    return Program(tuple(rows), program.nexts), lookups
