"""The way from what the user asked for to what is being built, as messages tell it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(slots=True)
class Frame:
    """An attribute that is being built.

    Attributes:
        injector: whose attribute it is.
        name: its name there.
        label: how messages call it.
        maker: what builds it: a component, a computed attribute or an expression.
    """

    injector: type
    name: str
    label: str
    maker: str = ""


def needed_by(path: Sequence[Frame]) -> str:
    """Who asks, from the innermost outwards.

    >>> quant = Frame(object, "quant", "quant", "Quant.__init__")
    >>> needed_by([quant, Frame(object, "scale", "scale", "Scale.__init__")])
    'Scale.__init__, for scale, needed by Quant.__init__, for quant'
    """
    return ", needed by ".join(f"{frame.maker}, for {frame.label}" for frame in reversed(path))


def cycle_through(path: Sequence[Frame], injector: type, name: str) -> str:
    """The circle that leads from an attribute back to it.

    >>> cycle_through([Frame(object, "a", "a"), Frame(object, "b", "b")], object, "a")
    'a → b → a'
    """
    start = next(index for index, frame in enumerate(path) if frame.injector is injector and frame.name == name)
    return " → ".join([*(frame.label for frame in path[start:]), path[start].label])
