"""Recording the step of a cell: its operations run on stand-ins for tensors, and become a program."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from quant_core.proxies import QuantProxy
from quant_rnn.native.program import Kind, Program, Row
from quant_rnn.stages import Number, Stages


class Recorded:
    """Stands for a tensor ``(B, width)`` of a step.

    Args:
        recorder: where what is done with it is written down.
        row: the row of the program that gives it.
    """

    def __init__(self, recorder: Recorder, row: int) -> None:
        self.recorder, self.row = recorder, row

    @property
    def width(self) -> int:
        """How many columns it has."""
        return self.recorder.rows[self.row].width

    @property
    def shape(self) -> tuple[int, int]:
        """``(B, width)``."""
        return self.recorder.batch, self.width

    def __mul__(self, other: Recorded) -> Recorded:
        return self.recorder.record(Kind.MUL, self, other)

    def __add__(self, other: Recorded) -> Recorded:
        return self.recorder.record(Kind.ADD, self, other)

    def __rsub__(self, one: int) -> Recorded:
        assert one == 1, "a step subtracts from nothing but 1"
        return self.recorder.record(Kind.COMPLEMENT, self)


class Recorder(Stages):
    """Writes down what a step does.

    Args:
        projected: the projected input, ``(T, B, K)``.
        states: the states before the step, ``(B, width)`` each.

    Attributes:
        rows: the operations so far.
        quantizers: the quantizer of each call.
        elements: how many elements each of them is given.
        matrices: what ``linear`` multiplies with.
        biases: what it adds.

    >>> import torch
    >>> recorder = Recorder(torch.zeros(5, 2, 3), [torch.zeros(2, 3)])
    >>> (state,) = recorder.states
    >>> program = recorder.program([recorder.tanh(recorder.input + state)])
    >>> [Kind(row.kind).name for row in program.rows], program.nexts
    (['INPUT', 'STATE', 'ADD', 'TANH'], (3,))
    """

    def __init__(self, projected: Tensor, states: Sequence[Tensor]) -> None:
        self.batch: int = projected.shape[1]
        self.rows: list[Row] = []
        self.quantizers: list[QuantProxy] = []
        self.elements: list[int] = []
        self.matrices: list[Tensor] = []
        self.biases: list[Tensor] = []
        self.input = self._given(Kind.INPUT, 0, projected.shape[2])
        self.states = tuple(self._given(Kind.STATE, index, state.shape[1]) for index, state in enumerate(states))

    def program(self, after: Sequence[Recorded]) -> Program:
        """All of it, with the states after the step."""
        return Program(tuple(self.rows), tuple(state.row for state in after))

    def record(self, kind: Kind, a: Recorded, b: Recorded | None = None, which: int = -1, width: int = -1) -> Recorded:
        """One more operation."""
        second = -1 if b is None else b.row
        self.rows.append(Row(int(kind), a.row, second, which, a.width if width < 0 else width))
        return Recorded(self, len(self.rows) - 1)

    def linear(self, x: Number, weight: Tensor, added: Number | None = None) -> Recorded:
        """A matrix product."""
        self.matrices.append(weight)
        if isinstance(added, Tensor):
            self.biases.append(added)
            added = self._given(Kind.BIAS, len(self.biases) - 1, weight.shape[0])
        return self.record(Kind.LINEAR, x, added, len(self.matrices) - 1, weight.shape[0])

    def columns(self, x: Number, start: int, stop: int) -> Recorded:
        """A part of another number."""
        return self.record(Kind.COLUMNS, x, None, start, stop - start)

    def split(self, x: Number, parts: int) -> tuple[Recorded, ...]:
        """Parts of one width."""
        size = x.width // parts
        return tuple(self.columns(x, part * size, (part + 1) * size) for part in range(parts))

    def sigmoid(self, x: Number) -> Recorded:
        """A function."""
        return self.record(Kind.SIGMOID, x)

    def tanh(self, x: Number) -> Recorded:
        """A function."""
        return self.record(Kind.TANH, x)

    def relu(self, x: Number) -> Recorded:
        """A function."""
        return self.record(Kind.RELU, x)

    def quantized(self, quantizer: QuantProxy | None, x: Number) -> Number:
        """A call of a quantizer, unless that is off."""
        if quantizer is None or not quantizer.is_quant_enabled:
            return x
        self.quantizers.append(quantizer)
        self.elements.append(self.batch * x.width)
        return self.record(Kind.QUANT, x, None, len(self.quantizers) - 1)

    def value(self, quantizer: QuantProxy | None, x: Number) -> Number:
        """The same."""
        return self.quantized(quantizer, x)

    def _given(self, kind: Kind, index: int, width: int) -> Recorded:
        self.rows.append(Row(int(kind), which=index, width=width))
        return Recorded(self, len(self.rows) - 1)
