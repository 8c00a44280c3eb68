"""The functions of the compiled library, as their C source declares them."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

SOURCES: Final = ("quant_core.native", "kernels", "statistics")
"""The package and the C files that hold them."""

MODES: Final = {"ROUND": 0, "HALF_UP": 1, "FLOOR": 2, "CEIL": 3, "TO_ZERO": 4}
"""The rounding modes by their number in kernels.c."""

Grain = tuple[int, int, int]
"""``(outer, channels, inner)``: how a tensor is seen whose channels have a scale each."""

Bounds = tuple[float, float]
"""The smallest and the largest integer."""

UNIT: Final = 16384
"""What the rounding error of an element is kept in parts of, in the code that :meth:`Kernels.quantize` keeps."""

ABOVE: Final = 32767
"""The code of an element above the range."""

BELOW: Final = -32767
"""The code of an element below it."""

_BLOCK = 4096  # these four as in kernels.c
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
    "by_threshold": [*[_POINTER] * 3, *_GRAIN, _POINTER, _FLOAT, _FLOAT, *_RANGE, _INT, _INT, _POINTER, _INT],
    "gradient_by_threshold": [*[_POINTER] * 4, *_GRAIN, _POINTER, _FLOAT, *_RANGE, *[_POINTER] * 3, _INT],
    "nth_largest": [_POINTER, _SIZE, _SIZE, _INT, _FLOAT, _FLOAT, *[_POINTER] * 3, _INT],
    "add_at_element": [_POINTER, _SIZE, _FLOAT, _POINTER, _POINTER, _FLOAT],
    "follow": [_POINTER, _POINTER, _SIZE, _SIZE, _DOUBLE],
}
_RESULTS = {"nth_largest": _SIZE}


class Library:
    """The functions of one shared library, each as an attribute with an underscore before its name.

    Args:
        path: the shared library.
        signatures: the types of the arguments of each function, as its source declares them.
        results: the types of what they return; nothing where they are left out.
    """

    def __init__(
        self, path: Path, signatures: Mapping[str, Sequence[type]], results: Mapping[str, type] = MappingProxyType({})
    ) -> None:
        library = ctypes.CDLL(str(path))
        for name, arguments in signatures.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, results.get(name)
            setattr(self, f"_{name}", function)


class Binding(Library):
    """The kernels of quantizers.

    Args:
        path: the shared library.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, _SIGNATURES, _RESULTS)


def blocks_of(grain: Grain) -> int:
    """How many partial sums there are.

    >>> blocks_of((2, 3, 5000))
    12
    """
    outer, channels, inner = grain
    return outer * channels * -(-inner // _BLOCK)
