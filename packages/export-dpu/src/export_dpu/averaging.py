"""How a DPU averages: it has no division, and multiplies the sum of a window by ``m / 2^k`` near ``1 / n``.

Vitis AI's quantizers publish the factors, and compute with them so that what they train is what the hardware does. For windows
whose number of elements is a power of two the factor is exact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

_OF_THE_HARDWARE: Final[Mapping[tuple[int, int], tuple[int, int]]] = {
    (3, 3): (7, 6),
    (5, 5): (10, 8),
    (6, 6): (7, 8),
    (3, 6): (7, 7),
    (6, 3): (7, 7),
    (7, 7): (21, 10),
    (14, 14): (21, 12),
}
"""Windows with a factor of their own: height and width → ``m``, ``k``."""
_PRECISION: Final = 128


def average_factor(kernel: tuple[int, int]) -> tuple[int, int]:
    """``(m, k)``: a window of ``n`` elements is averaged as ``m / 2^k`` times its sum.

    Where the hardware has no factor of its own for the window, ``m / 2^k`` is the number nearest to ``1 / n`` with
    ``2^k < 128 · n``, and the shortest of those that are equally near.

    >>> average_factor((2, 2)), average_factor((7, 7)), average_factor((1, 10))
    ((1, 2), (21, 10), (51, 9))
    """
    own = _OF_THE_HARDWARE.get(kernel)
    if own is not None:
        return own
    count = math.prod(kernel)
    shifts = range(math.ceil(math.log2(_PRECISION * count)))
    best = min(shifts, key=lambda bits: abs(round(2**bits / count) / 2**bits - 1 / count))
    return round(2**best / count), best
