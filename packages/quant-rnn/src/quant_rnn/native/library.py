"""The compiled steps as functions of tensors."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from quant_rnn.native.tables import Tables

_POINTER, _SIZE, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
_SIGNATURES: dict[str, list[type]] = {
    "lstm_forward": [*[_POINTER] * 5, _SIZE, _SIZE],
    "lstm_backward": [*[_POINTER] * 7, _SIZE, _SIZE],
    "gru_forward": [*[_POINTER] * 6, _SIZE, _SIZE],
    "gru_backward": [*[_POINTER] * 9, _SIZE, _SIZE],
    "lstm_collect_gates": [*[_POINTER] * 6, _SIZE, _SIZE],
    "lstm_collect_cell": [*[_POINTER] * 8, _SIZE, _SIZE],
    "lstm_collect_output": [*[_POINTER] * 7, _SIZE, _SIZE],
    "lstm_collect_backward": [*[_POINTER] * 13, _SIZE, _SIZE],
    "running_average": [_POINTER, _POINTER, _FLOAT, _SIZE, _SIZE, _FLOAT, _FLOAT],
    "rnn_forward": [_POINTER, *[_FLOAT] * 3, _POINTER, _POINTER, _SIZE],
    "rnn_backward": [_POINTER, _POINTER, *[_FLOAT] * 3, *[_POINTER] * 4, _SIZE, _SIZE],
}


class Grid(ctypes.Structure):
    """Scale and range of a quantizer; scale 0 stands for none."""

    _fields_ = (("scale", _FLOAT), ("low", _FLOAT), ("high", _FLOAT))


class LSTM(ctypes.Structure):
    """What does not change between the steps of an LSTM; the fields are those in ``steps.c``."""

    _fields_ = (
        ("acc", Grid * 4),
        ("input_gate", Grid),
        ("cell", Grid),
        ("io", Grid),
        ("levels", _SIZE),
        ("states", _SIZE),
        ("coupled", _SIZE),
        ("tables", _POINTER * 6),
    )

    @classmethod
    def of(
        cls,
        accs: Sequence[Grid],
        input_gate: Grid,
        cell: Grid,
        io: Grid,
        gates: Tables,
        states: Tables,
        *,
        coupled: bool,
    ) -> LSTM:
        """From the grids and the tables, which must be kept as long as it is used."""
        pointers = [table.data_ptr() for table in (*gates, *states)]
        return cls(
            (Grid * 4)(*accs),
            input_gate,
            cell,
            io,
            gates.value.shape[-1],
            states.value.shape[-1],
            int(coupled),
            (_POINTER * 6)(*pointers),
        )


class GRU(ctypes.Structure):
    """What does not change between the steps of a GRU; the fields are those in ``steps.c``."""

    _fields_ = (("acc", Grid * 3), ("product", Grid), ("io", Grid), ("levels", _SIZE), ("tables", _POINTER * 3))

    @classmethod
    def of(cls, accs: Sequence[Grid], product: Grid, io: Grid, gates: Tables) -> GRU:
        """From the grids and the tables, which must be kept as long as it is used."""
        pointers = [table.data_ptr() for table in gates]
        return cls((Grid * 3)(*accs), product, io, gates.value.shape[-1], (_POINTER * 3)(*pointers))


class Call(ctypes.Structure):
    """A quantizer at one place of a step; ``collects`` where its threshold is what it finds, and scale 0 for none."""

    _fields_ = (("low", _FLOAT), ("high", _FLOAT), ("divisor", _FLOAT), ("least", _FLOAT), ("collects", _SIZE))


class Steps:
    """The functions of one shared library; all tensors are contiguous float32 on the CPU.

    Args:
        path: the shared library.
    """

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        for name, arguments in _SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, None
            setattr(self, f"_{name}", function)

    def lstm_forward(self, model: LSTM, pre: Tensor, before: Tensor, after: Tensor, out: Tensor) -> None:
        """Accumulators ``(B, G·H)`` and cell state ``(B, H)`` to the next cell state and the output, in place."""
        self._lstm_forward(  # type: ignore[attr-defined]
            ctypes.byref(model), pre.data_ptr(), before.data_ptr(), after.data_ptr(), out.data_ptr(), *before.shape
        )

    def lstm_backward(
        self, model: LSTM, pre: Tensor, before: Tensor, for_h: Tensor, for_c: Tensor, for_pre: Tensor, sums: Tensor
    ) -> None:
        """The gradients of the accumulators and of the cell state before the step; ``sums`` (11) grow by those of scales."""
        self._lstm_backward(  # type: ignore[attr-defined]
            ctypes.byref(model),
            pre.data_ptr(),
            before.data_ptr(),
            for_h.data_ptr(),
            for_c.data_ptr(),
            for_pre.data_ptr(),
            sums.data_ptr(),
            *before.shape,
        )

    def gru(self, part: str, model: GRU, *tensors: Tensor, shape: Sequence[int]) -> None:
        """A step of a GRU, ``"forward"`` or ``"backward"``, in place."""
        getattr(self, f"_gru_{part}")(ctypes.byref(model), *(tensor.data_ptr() for tensor in tensors), *shape)

    def lstm_collect(self, part: str, calls: ctypes.Array[Call], *tensors: Tensor, shape: Sequence[int]) -> None:
        """One part of a step that collects statistics, ``"gates"``, ``"cell"``, ``"output"`` or ``"backward"``, in place."""
        run = getattr(self, f"_lstm_collect_{part}")
        run(ctypes.byref(calls), *(tensor.data_ptr() for tensor in tensors), *shape)

    def running_average(self, average: Tensor, statistics: Tensor, least: float, before: int, momentum: float) -> None:
        """``average`` (one number) follows ``statistics`` (N), each at least ``least``, after ``before`` others, in place."""
        self._running_average(  # type: ignore[attr-defined]
            average.data_ptr(), statistics.data_ptr(), least, statistics.numel(), before, 1 - momentum, momentum
        )

    def rnn_forward(self, table: Tensor, grid: Grid, pre: Tensor, out: Tensor) -> None:
        """``out = table[level of pre]``."""
        self._rnn_forward(  # type: ignore[attr-defined]
            table.data_ptr(), grid.scale, grid.low, grid.high, pre.data_ptr(), out.data_ptr(), pre.numel()
        )

    def rnn_backward(
        self, tables: Tables, grid: Grid, pre: Tensor, for_h: Tensor, for_pre: Tensor, sums: Tensor
    ) -> None:
        """The gradient of the accumulators; ``sums`` (2) grow by those of the two scales."""
        self._rnn_backward(  # type: ignore[attr-defined]
            tables.slope.data_ptr(),
            tables.error.data_ptr(),
            grid.scale,
            grid.low,
            grid.high,
            pre.data_ptr(),
            for_h.data_ptr(),
            for_pre.data_ptr(),
            sums.data_ptr(),
            *pre.shape,
        )


def grids_of(scales: Tensor, ranges: Sequence[float]) -> list[Grid]:
    """One grid for each scale, with its range: the numbers of ``ranges`` in pairs."""
    pairs = zip(ranges[::2], ranges[1::2], strict=True)
    return [Grid(scale, low, high) for scale, (low, high) in zip(scales.tolist(), pairs, strict=True)]
