"""What the compiled kernels take and return, as their C source declares it."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

_POINTER, _SIZE, _FLOAT, _INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_int
_DOUBLE = ctypes.c_double
_GRAIN = [_SIZE, _SIZE, _SIZE]
_RANGE = [_FLOAT, _FLOAT]
_SIGNATURES: dict[str, list[type]] = {
    "quantize": [*[_POINTER] * 3, *_GRAIN, _POINTER, _POINTER, *_RANGE, _INT, _INT, _INT],
    "gradient": [*[_POINTER] * 3, *_GRAIN, _POINTER, *_RANGE, *[_POINTER] * 4, _INT],
    "gradient_of_scale": [*[_POINTER] * 2, *_GRAIN, _POINTER, _POINTER, *_RANGE, _INT, *[_POINTER] * 2, _INT],
    "largest": [_POINTER, _SIZE, _SIZE, _POINTER, _INT],
    "gradient_of_largest": [_POINTER, _SIZE, _SIZE, *[_POINTER] * 3, _INT],
    "by_largest": [_POINTER, _POINTER, _SIZE, _SIZE, _FLOAT, _FLOAT, *_RANGE, _INT, _POINTER, _POINTER, _INT],
    "gradient_by_largest": [
        *[_POINTER] * 3,
        _SIZE,
        _SIZE,
        *[_POINTER] * 2,
        _FLOAT,
        *_RANGE,
        _INT,
        *[_POINTER] * 3,
        _INT,
    ],
    "nth_largest": [_POINTER, _SIZE, _SIZE, _INT, _FLOAT, _FLOAT, *[_POINTER] * 3, _INT],
    "add_at_element": [_POINTER, _SIZE, _FLOAT, _POINTER, _POINTER, _FLOAT],
    "follow": [_POINTER, _POINTER, _SIZE, _SIZE, _DOUBLE],
}
_RESULTS = {"nth_largest": _SIZE}


def functions_of(path: Path) -> dict[str, Any]:
    """The functions of a shared library by their name, which check what they are called with."""
    library, found = ctypes.CDLL(str(path)), {}
    for name, arguments in _SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, _RESULTS.get(name)
        found[name] = function
    return found
