"""Which quantizer a grid comes from."""

from __future__ import annotations

from typing import Any


class GridOrigin:
    """The identity of a quantizer whose scale and zero-point are stored, and not computed from the tensor.

    Two calls of one such quantizer give two scale tensors with the same numbers. In a graph that is compiled or exported
    the numbers are not known, and only the origin tells that the grids are the same. It is an identity and nothing
    besides: a copy of a quantizer, whose scale may go its own way, has an origin of its own.

    >>> import copy
    >>> origin = GridOrigin()
    >>> copy.deepcopy(origin) is origin
    False
    """

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return GridOrigin, ()

    def __repr__(self) -> str:
        return "GridOrigin()"
