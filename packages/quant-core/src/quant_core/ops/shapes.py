"""Which shapes a scale may have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def broadcasts_to(shape: Sequence[Any], to: Sequence[Any]) -> bool:
    """Whether a tensor of one shape is broadcast to the other, and not the other way round.

    >>> broadcasts_to((3, 1, 1), (2, 3, 4, 4)), broadcasts_to((2, 1), (3,))
    (True, False)
    """
    sizes = zip(reversed(shape), reversed(to), strict=False)
    return len(shape) <= len(to) and all(own == 1 or own == size for own, size in sizes)
