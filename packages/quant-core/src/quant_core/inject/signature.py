"""What a component or a computed attribute asks for: its parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple


class Need(NamedTuple):
    """One parameter.

    Attributes:
        name: its name, which is the name of the attribute that fills it.
        optional: whether it can be left out.
        default: what stands in then.
        obstacle: why no attribute can fill it; empty when one can.
    """

    name: str
    optional: bool
    default: Any
    obstacle: str = ""


@lru_cache(maxsize=4096)
def needs(component: Callable[..., Any]) -> tuple[Need, ...]:
    """The parameters of a class (of its ``__init__``) or of a function, in order.

    ``self``, ``*args``, ``**kwargs`` and optional parameters that no attribute can fill are left out.

    >>> def scale(maximum, bits=8, *rest, **options): ...
    >>> [need.name for need in needs(scale)]
    ['maximum', 'bits']
    """
    found = []
    for parameter in _parameters(component):
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        optional = parameter.default is not parameter.empty
        obstacle = _obstacle(parameter)
        if obstacle and optional:
            continue
        found.append(Need(parameter.name, optional, parameter.default if optional else None, obstacle))
    return tuple(found)


def describe(component: Callable[..., Any]) -> str:
    """How a component is called in messages: ``AbsMax.__init__``, ``@value Quantizer.scaling_init``.

    >>> describe(dict)
    'dict.__init__'
    """
    name = short_name(component)
    return f"{name}.__init__" if isinstance(component, type) else f"@value {name}"


def short_name(component: Callable[..., Any]) -> str:
    """The qualified name without the functions around it."""
    name: str = getattr(component, "__qualname__", None) or repr(component)
    return name.rpartition("<locals>.")[2]


def _parameters(component: Callable[..., Any]) -> list[inspect.Parameter]:
    # A class that overrides both __new__ and __init__ states its parameters in __init__; inspect would look at __new__.
    of_init = isinstance(component, type) and component.__init__ is not object.__init__  # type: ignore[misc]
    try:
        if of_init:
            return list(inspect.signature(component.__init__).parameters.values())[1:]
        return list(inspect.signature(component).parameters.values())
    except (TypeError, ValueError):  # written in C, without a signature
        return []


def _obstacle(parameter: inspect.Parameter) -> str:
    if parameter.kind is parameter.POSITIONAL_ONLY:
        return "is positional-only, and parameters are matched by name"
    if parameter.name.startswith("_"):
        return "starts with an underscore, and such names are not injected"
    return ""
