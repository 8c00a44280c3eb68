"""Referring to an attribute of the injector from within its body."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from quant_core.errors import InjectionError


class Step(NamedTuple):
    """One step of an expression: ``.name`` or ``[key]``."""

    is_item: bool
    name: Any


class This:
    """An expression such as ``this.scaling_init``, ``this.shapes["weight"]`` or ``(this << 1).bit_width``.

    ``this`` stands for the injector itself; each ``<< 1`` stands for the injector around it, where injectors are
    nested. The expression is followed when the quantizer is built, so that it sees what was overridden. On the injector
    ``["name"]`` is another spelling of ``.name``; further on it is an index.

    Raises:
        InjectionError: when it is used as if it were a value already, or shifted after its first step.

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
        if name.startswith("_"):  # what copy, pickle and notebooks probe for
            raise AttributeError(f"{self!r} cannot lead to {name!r}: names with a leading underscore are not injected")
        return This(self._levels, (*self._steps, Step(False, name)))

    def __getitem__(self, key: Any) -> This:
        return This(self._levels, (*self._steps, Step(True, key)))

    def __lshift__(self, levels: int) -> This:
        if self._steps or not isinstance(levels, int) or levels < 1:
            tail = This(0, self._steps)
            raise InjectionError(
                f"{self!r} << {levels!r} leads nowhere",
                why="<< counts injectors outwards from this: a whole number of 1 or more, before the first name",
                fix=f"Write (this << 1){repr(tail).removeprefix('this') or '.name'}.",
            )
        return This(self._levels + levels)

    def __bool__(self) -> bool:
        raise self._no_value()

    def __iter__(self) -> Iterator[Any]:
        # Without it, unpacking would ask for [0], [1], … forever.
        raise self._no_value()

    def _no_value(self) -> InjectionError:
        return InjectionError(
            f"{self!r} is no value yet",
            why="it is followed when the quantizer is built, and cannot be tested or unpacked before",
            fix="Take the attribute as a parameter of a @value function.",
        )

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
