"""The compiled steps as functions of tensors."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quant_core.native.binding import Library

_POINTER, _SIZE, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
_SIGNATURES: dict[str, list[type]] = {
    "run": [_POINTER, *[_SIZE] * 6],
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


class Matrix(ctypes.Structure):
    """What products are formed with."""

    _fields_ = (*((name, _POINTER) for name in ("numbers", "bias")), *((name, _SIZE) for name in ("width", "features")))


class Model(ctypes.Structure):
    """What does not change between the steps."""

    _fields_ = (
        *((name, _POINTER) for name in ("ops", "slots", "calls", "tables", "matrices", "multiply")),
        *((name, _POINTER) for name in ("scales", "found", "at", "sums", "extra")),
        *((name, _SIZE) for name in ("row", "batch", "start")),
    )


class Steps(Library):
    """The functions of one shared library; all tensors are float32 on the CPU.

    Args:
        path: the shared library.

    Attributes:
        multiply: the address of the function that forms matrix products, ``None`` where torch is to be called for them.
    """

    _run: Any
    _running_average: Any

    def __init__(self, path: Path) -> None:
        super().__init__(path, _SIGNATURES)
        self.multiply = _sgemm()

    def run(self, model: Model, ops: range, rows: int, order: range) -> None:
        """Compute some operations of some steps in place, so many rows of the batch at a time."""
        self._run(ctypes.byref(model), ops.start, ops.stop, rows, order.start, order.step, len(order))

    def running_average(self, average: Tensor, statistics: Tensor, least: float, before: int, momentum: float) -> None:
        """``average`` (one number) follows ``statistics`` (N), each at least ``least``, after ``before`` others, in place."""
        self._running_average(
            average.data_ptr(), statistics.data_ptr(), least, statistics.numel(), before, 1 - momentum, momentum
        )


def _sgemm() -> int | None:
    """Where the BLAS is that torch computes with: the same products are rounded in the same way, without a call of torch each.

    Its sizes have 32 bits or 64; with the lower half in front one address serves both.
    """
    if sys.byteorder != "little" or torch._C.__file__ is None:
        return None
    try:
        return ctypes.cast(ctypes.CDLL(torch._C.__file__).sgemm_, ctypes.c_void_p).value
    except (OSError, AttributeError):
        return None
