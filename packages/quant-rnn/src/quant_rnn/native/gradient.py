"""The program of the backward pass of a step, from that of the step."""

from __future__ import annotations

from typing import Final, NamedTuple

from quant_rnn.native.program import Kind, Program, Row

_SLOPES: Final = {
    Kind.SIGMOID: Kind.SIGMOID_BACK,
    Kind.TANH: Kind.TANH_BACK,
    Kind.RELU: Kind.RELU_BACK,
}


class Backward(NamedTuple):
    """What a backward pass computes.

    Attributes:
        rows: those of the step, and behind them those of its gradients.
        gradients: the row of the gradient of each row that has one.
        parts: for each number whose gradient is put together, the columns at which parts start, and their gradients.
    """

    rows: list[Row]
    gradients: dict[int, int]
    parts: dict[int, list[tuple[int, int]]]


def backward_of(program: Program) -> Backward:
    """Gradients of all numbers of a step, for those of the states after it and of its output."""
    rows, gradients = list(program.rows), dict[int, int]()
    parts: dict[int, list[tuple[int, int]]] = {}

    def emit(kind: Kind, a: int = -1, b: int = -1, which: int = -1, width: int = 0) -> int:
        rows.append(Row(int(kind), a, b, which, width or rows[a].width))
        return len(rows) - 1

    def add(number: int, gradient: int) -> None:
        before = gradients.get(number)
        gradients[number] = gradient if before is None else emit(Kind.ADD, before, gradient)

    for index, after in enumerate(program.nexts):
        carried = emit(Kind.CARRY, which=index, width=rows[after].width)
        if index == 0:
            carried = emit(Kind.ADD, carried, emit(Kind.GIVEN, width=rows[after].width))
        add(after, carried)
    for number in range(len(program.rows) - 1, -1, -1):
        kind, a, b, which, width = program.rows[number]
        for _, part in parts.get(number, ()):
            gradients[number] = emit(Kind.JOINED, part, gradients.get(number, -1), width=width)
        if number not in gradients:
            continue
        g = gradients[number]
        if kind == Kind.QUANT:
            add(a, emit(Kind.QUANT_BACK, a, g, which))
        elif kind == Kind.LOOKUP:
            add(a, emit(Kind.LOOKUP_BACK, a, g, which))
        elif kind in _SLOPES:
            add(a, emit(_SLOPES[Kind(kind)], number, g))
        elif kind == Kind.MUL:
            add(a, emit(Kind.MUL, g, b))
            add(b, emit(Kind.MUL, g, a))
        elif kind == Kind.ADD:
            add(a, g)
            add(b, g)
        elif kind == Kind.COMPLEMENT:
            add(a, emit(Kind.NEGATE, g))
        elif kind == Kind.COLUMNS:
            parts.setdefault(a, []).append((which, g))
        elif kind == Kind.LINEAR:
            gradients[a] = emit(Kind.LINEAR_BACK, g, gradients.get(a, -1), which, rows[a].width)
            if b >= 0:
                add(b, g)
    return Backward(rows, gradients, parts)
