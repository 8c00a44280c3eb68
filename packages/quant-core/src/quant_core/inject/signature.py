"""What a component or a computed attribute asks for: its parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from quant_core.errors import InjectionError


class Need(NamedTuple):
    """One parameter: its name, and whether it can be left out."""

    name: str
    optional: bool
    default: Any


@lru_cache(maxsize=None)
def needs(component: Callable[..., Any]) -> tuple[Need, ...]:
    """The parameters of a class (of its ``__init__``) or of a function, without ``self`` and ``*args, **kwargs``.

    Raises:
        InjectionError: when a parameter is positional-only and has no default, because injection is by name.

    >>> def scale(maximum, bits=8): ...
    >>> [need.name for need in needs(scale)]
    ['maximum', 'bits']
    """
    target = component.__init__ if isinstance(component, type) else component  # type: ignore[misc]
    try:
        parameters = list(inspect.signature(target).parameters.values())
    except (TypeError, ValueError):
        return ()
    if isinstance(component, type):
        parameters = parameters[1:]
    found = []
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        optional = parameter.default is not parameter.empty
        if parameter.kind is parameter.POSITIONAL_ONLY:
            if optional:
                continue
            raise InjectionError(
                f"{describe(component)} cannot be wired",
                why=f"its parameter {parameter.name!r} is positional-only, and parameters are matched by name",
                fix="Remove the '/' from its signature, or wrap it.",
            )
        found.append(Need(parameter.name, optional, parameter.default if optional else None))
    return tuple(found)


def describe(component: Callable[..., Any]) -> str:
    """How a component is called in messages.

    >>> describe(dict)
    'dict.__init__'
    """
    name = getattr(component, "__qualname__", repr(component)).rpartition("<locals>.")[2]
    return f"{name}.__init__" if isinstance(component, type) else f"@value {name}"
