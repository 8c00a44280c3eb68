"""Referring to an attribute of the injector from within its body."""

from __future__ import annotations

from typing import Any, NamedTuple


class Step(NamedTuple):
    """One step of an expression: ``.name`` or ``[key]``."""

    is_item: bool
    name: Any


class This:
    """An expression such as ``this.scaling_init``, ``this.shapes["weight"]`` or ``(this << 1).bit_width``.

    ``this`` stands for the injector itself; each ``<< 1`` stands for the injector around it, where injectors are nested. The
    expression is followed when the quantizer is built, so that it sees what was overridden.

    >>> from quant_core.inject import Injector, this
    >>> class Outer(Injector):
    ...     bit_width = 3
    ...     class Inner(Injector):
    ...         bit_width = (this << 1).bit_width
    >>> Outer.let(bit_width=5).Inner.bit_width
    5
    """

    __slots__ = ("_levels", "_steps")

    def __init__(self, levels: int = 0, steps: tuple[Step, ...] = ()) -> None:
        self._levels = levels
        self._steps = steps

    def __getattr__(self, name: str) -> This:
        if name.startswith("__"):
            raise AttributeError(name)
        return This(self._levels, (*self._steps, Step(False, name)))

    def __getitem__(self, key: Any) -> This:
        return This(self._levels, (*self._steps, Step(True, key)))

    def __lshift__(self, levels: int) -> This:
        return This(self._levels + levels, self._steps)

    def __reduce__(self) -> tuple[Any, ...]:
        return This, (self._levels, self._steps)

    def __repr__(self) -> str:
        start = f"(this << {self._levels})" if self._levels else "this"
        return start + "".join(f"[{step.name!r}]" if step.is_item else f".{step.name}" for step in self._steps)


def levels_of(expression: This) -> int:
    """How many injectors outwards the expression starts."""
    return expression._levels


def steps_of(expression: This) -> tuple[Step, ...]:
    """The steps that the expression takes from there."""
    return expression._steps


this = This()
"""The injector in whose body it is written."""
