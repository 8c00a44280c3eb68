"""Attributes that are computed from other attributes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class value:  # noqa: N801 - a decorator, read as a word
    """Marks a function of an injector's body as an attribute whose value is computed when the quantizer is built.

    The function's parameters are other attributes of the injector. What it returns becomes the attribute: a class is wired like
    any other component, and an expression of :data:`~quant_core.inject.this` is followed.

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
        self.function = function

    def __repr__(self) -> str:
        return f"@value {self.function.__name__}"
