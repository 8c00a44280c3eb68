"""The compiled steps as functions of tensors."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from quant_core.native.binding import Library

_POINTER, _SIZE, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
_SIGNATURES: dict[str, list[type]] = {
    "run": [_POINTER, *[_SIZE] * 4],
    "running_average": [_POINTER, _POINTER, _FLOAT, _SIZE, _SIZE, _FLOAT, _FLOAT],
}


class Op(ctypes.Structure):
    """An operation on slots; the fields of this and the other structures are those in ``steps.c``."""

    _fields_ = tuple((name, _SIZE) for name in ("kind", "result", "a", "b", "which", "width"))


class Slot(ctypes.Structure):
    """Where a number is at each step."""

    _fields_ = (
        *((name, _POINTER) for name in ("base", "first")),
        *((name, _SIZE) for name in ("step", "shift", "mask", "pitch", "jump")),
    )


class Call(ctypes.Structure):
    """A quantizer at one place of a step; ``collects`` where its threshold is what it finds."""

    _fields_ = (("low", _FLOAT), ("high", _FLOAT), ("divisor", _FLOAT), ("least", _FLOAT), ("collects", _SIZE))


class Table(ctypes.Structure):
    """A function between two quantizers."""

    _fields_ = (*((name, _POINTER) for name in ("value", "slope", "error")), ("front", _SIZE), ("behind", _SIZE))


class Model(ctypes.Structure):
    """What does not change between the steps."""

    _fields_ = (
        *((name, _POINTER) for name in ("ops", "slots", "calls", "tables")),
        *((name, _POINTER) for name in ("scales", "found", "at", "sums", "extra")),
        *((name, _SIZE) for name in ("row", "batch", "start")),
    )


class Steps(Library):
    """The functions of one shared library; all tensors are float32 on the CPU.

    Args:
        path: the shared library.
    """

    _run: Any
    _running_average: Any

    def __init__(self, path: Path) -> None:
        super().__init__(path, _SIGNATURES)

    def run(self, model: Model, first: int, last: int, rows: int) -> Callable[[int], None]:
        """What computes the operations from ``first`` to ``last`` of a step in place, so many rows of the batch at a time."""
        return functools.partial(self._run, ctypes.byref(model), first, last, rows)

    def running_average(self, average: Tensor, statistics: Tensor, least: float, before: int, momentum: float) -> None:
        """``average`` (one number) follows ``statistics`` (N), each at least ``least``, after ``before`` others, in place."""
        self._running_average(
            average.data_ptr(), statistics.data_ptr(), least, statistics.numel(), before, 1 - momentum, momentum
        )
