"""A quantizer as a flat list of named attributes that wire themselves.

An injector is a class that is never instantiated: reading an attribute builds it. A class found under the attribute's
name is called with arguments taken from the attributes of the same names, and so on, down to plain values.
"""

from __future__ import annotations

import copyreg
from types import MappingProxyType
from typing import Any

from quant_core.errors import InjectionError
from quant_core.inject.attributes import (
    ENCLOSURE,
    OVERRIDE,
    OWN,
    RESERVED,
    enclosure_of,
    is_injectable,
    is_injector,
    is_override,
    names_of,
    overrides_of,
    title,
    written,
)
from quant_core.inject.session import open_session
from quant_core.inject.signature import short_name
from quant_core.inject.tree import render
from quant_core.inject.words import lookup


def _refuse_foreign(name: str, bases: tuple[type, ...]) -> None:
    for base in bases:
        if not is_injector(base):
            raise InjectionError(
                f"{name} cannot inherit from {short_name(base)}",
                why="the attributes of an ordinary class are not wired, so that all bases must be injectors",
                fix=f"Write class {short_name(base)}(Injector): ..., or use it as a component.",
            )


def _refuse_names(owner: str, names: list[str]) -> None:
    for name in names:
        raise InjectionError(
            f"{name!r} cannot be an attribute of {owner}",
            why="names that start with an underscore are not injected, and let and mro belong to every injector",
            fix="Choose another name.",
        )


def _unchangeable(injector: type, name: str) -> InjectionError:
    owner = title(injector)
    return InjectionError(
        f"{owner}.{name} cannot be changed",
        why="an injector is shared by every layer that was built from it",
        fix=f"Derive one: {owner}.let({name}=...), or class Mine({owner}): {name} = ...",
    )


class InjectorType(type):
    """The metaclass of :class:`Injector`: keeps the attributes of a body aside, and builds what is read."""

    def __new__(metacls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> InjectorType:
        """The class of one body, or of one ``let``."""
        _refuse_foreign(name, bases)
        _refuse_names(name, [key for key in body if key in RESERVED])
        own = {key: item for key, item in body.items() if is_injectable(key)}
        rest = {key: item for key, item in body.items() if key not in own}
        return super().__new__(metacls, name, bases, {OVERRIDE: False, **rest, OWN: MappingProxyType(own)})

    def let(cls, /, **overrides: Any) -> InjectorType:
        """The same injector with some attributes replaced or added; the original stays as it is.

        Raises:
            InjectionError: for a name that starts with an underscore or is taken.
        """
        _refuse_names(title(cls), [name for name in overrides if not is_injectable(name)])
        if not overrides:
            return cls
        name = f"{title(cls)}.let({', '.join({**overrides_of(cls), **overrides})})"
        marks = {"__module__": cls.__module__, "__qualname__": name, "__doc__": cls.__doc__, OVERRIDE: True}
        return InjectorType(name, (cls,), {**overrides, **marks})

    def __getattr__(cls, name: str) -> Any:
        if not is_injectable(name):  # what Python and its tools probe for
            raise AttributeError(f"type object {cls.__name__!r} has no attribute {name!r}")
        return open_session(cls).get(name)

    def __setattr__(cls, name: str, item: Any) -> None:
        if is_injectable(name) or name in RESERVED:
            raise _unchangeable(cls, name)
        super().__setattr__(name, item)

    def __delattr__(cls, name: str) -> None:
        if is_injectable(name) or name in RESERVED:
            raise _unchangeable(cls, name)
        super().__delattr__(name)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """Refused: an injector has no instances."""
        example = "tensor_quant" if "tensor_quant" in cls else next(iter(names_of(cls)), "tensor_quant")
        raise InjectionError(
            f"{title(cls)} cannot be instantiated",
            why="an injector is a description; reading one of its attributes builds it",
            fix=f"Write {title(cls)}.{example}, or pass the class itself to a layer.",
        )

    def __contains__(cls, name: str) -> bool:
        return lookup(cls, name) is not None

    def __dir__(cls) -> list[str]:
        return sorted({*super().__dir__(), *names_of(cls), "let"} - {OWN, OVERRIDE, ENCLOSURE})

    def __repr__(cls) -> str:
        return f"<injector {short_name(cls)}>"

    def __str__(cls) -> str:
        return render(cls)


class Injector(metaclass=InjectorType):
    """Base of all quantizers that wire themselves.

    Reading an attribute builds it anew: a class is called with the attributes that its ``__init__`` names as
    parameters, a :class:`~quant_core.inject.value` function with those that it names; anything else is handed over as
    it is, and so is a class whose name there ends in ``_class``. Parameters with defaults are filled when an attribute
    of that name exists. What is read within one build is built once and shared.

    Attributes are overridden by inheritance, by composition (first base first) or by ``let(name=value)``, which returns
    a derived injector. ``name in Quantizer`` tells whether an attribute exists, ``str(Quantizer)`` shows what would be
    built.

    Raises:
        InjectionError: when it is instantiated or changed, or an attribute depends on itself.
        MissingDependencyError: when an attribute that is needed is not defined.

    >>> class Scale:
    ...     def __init__(self, start, least=0.0): self.start = start
    >>> class Quantizer(Injector):
    ...     scale = Scale
    ...     start = 0.1
    >>> Quantizer.scale.start
    0.1
    >>> Quantizer.let(start=0.5).scale.start
    0.5
    >>> "start" in Quantizer
    True
    >>> print(Quantizer)
    Quantizer
    └── scale: Scale
        ├── start = 0.1
        └── least = 0.0 (default)
    """


def _restore(base: InjectorType, overrides: dict[str, Any]) -> InjectorType:
    return base.let(**overrides)


def _restore_nested(outer: InjectorType, name: str, overrides: dict[str, Any]) -> InjectorType:
    nested: InjectorType = getattr(outer, name)
    return nested.let(**overrides)


def _reduce(injector: InjectorType) -> str | tuple[Any, ...]:
    """A class that somebody wrote pickles by its name, one made by ``let`` as its base and what it set."""
    if not is_override(injector):
        return injector.__qualname__
    enclosure = enclosure_of(injector)
    if enclosure is not None:
        return _restore_nested, (enclosure.session.injector, enclosure.name, overrides_of(injector))
    return _restore, (written(injector), overrides_of(injector))


copyreg.pickle(InjectorType, _reduce)
