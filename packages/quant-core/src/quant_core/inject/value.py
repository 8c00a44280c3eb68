"""Attributes that are computed from other attributes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quant_core.errors import InjectionError
from quant_core.inject.signature import describe


class value:
    """Marks a function of an injector's body as an attribute whose value is computed when the quantizer is built.

    The function's parameters are other attributes of the injector; one with a default is optional. What it returns
    becomes the attribute: a class is wired like any other component, and an expression of
    :data:`~quant_core.inject.this` is followed.

    Raises:
        InjectionError: when it is put on something else than a function.

    >>> from quant_core.inject import Injector
    >>> class Doubled(Injector):
    ...     half = 2
    ...     @value
    ...     def whole(half):
    ...         return 2 * half
    >>> Doubled.whole
    4
    """

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        if isinstance(function, type) or not callable(function):
            raise InjectionError(
                f"@value cannot be put on {function!r}",
                why="it marks a function whose result is the attribute",
                fix="Assign it without @value: a class is wired, anything else is handed over as it is.",
            )
        self.function = function

    def __repr__(self) -> str:
        return describe(self.function)
