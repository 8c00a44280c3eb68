"""The translations that torch's exporter knows, read once and not for each model."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

_IR = "function_ir"


@contextlib.contextmanager
def translations_read_once() -> Iterator[None]:
    """For the length of a block, let onnxscript remember what it has read.

    To convert a model, torch asks each of some 500 translations for its domain, and onnxscript parses the source code of each to
    answer: about 0.4 seconds for every model, as much as all the rest for a small one. The answers do not change.
    """
    import onnxscript.values

    kind: Any = onnxscript.values.TracedOnnxFunction
    known = kind.__dict__.get(_IR)
    if not isinstance(known, property):  # another version, or a block around this one
        yield
        return
    setattr(kind, _IR, _Remembered(known.fget))
    try:
        yield
    finally:
        setattr(kind, _IR, known)


class _Remembered:
    """A property that is computed once for each object."""

    def __init__(self, compute: Any) -> None:
        self._compute = compute

    def __get__(self, function: Any, kind: type) -> Any:
        return self if function is None else _answer(self._compute, function)


@functools.cache
def _answer(compute: Any, function: Any) -> Any:
    return compute(function)
