"""A quantizer as a flat list of named attributes that wire themselves.

An injector is a class that is never instantiated: reading an attribute builds it. A class found under the attribute's name is
called with arguments taken from the attributes of the same names, and so on, down to plain values.
"""

from __future__ import annotations

import copyreg
from types import MappingProxyType
from typing import Any

from quant_core.errors import InjectionError
from quant_core.inject.attributes import (
    OUTER,
    OVERRIDE,
    OWN,
    find,
    is_injectable,
    is_override,
    names_of,
    own_attributes,
)
from quant_core.inject.session import Session
from quant_core.inject.tree import render


class InjectorType(type):
    """The metaclass of :class:`Injector`: keeps the attributes of a body aside, and builds what is read."""

    def __new__(
        metacls, name: str, bases: tuple[type, ...], body: dict[str, Any], *, override: bool = False
    ) -> InjectorType:
        own = {key: item for key, item in body.items() if is_injectable(key)}
        rest = {key: item for key, item in body.items() if key not in own}
        rest[OWN] = MappingProxyType(own)
        rest[OVERRIDE] = override
        return super().__new__(metacls, name, bases, rest)

    def __init__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any], *, override: bool = False) -> None:
        super().__init__(name, bases, body)

    def __getattr__(cls, name: str) -> Any:
        if not is_injectable(name):
            raise AttributeError(f"type object {cls.__name__!r} has no attribute {name!r}")
        return Session(cls).get(name)

    def __setattr__(cls, name: str, item: Any) -> None:
        if not is_injectable(name):
            super().__setattr__(name, item)
            return
        raise InjectionError(
            f"{cls.__name__}.{name} cannot be assigned",
            why="an injector is shared by every layer that was built from it, so that it does not change",
            fix=f"Derive one: {cls.__name__}.let({name}=...), or class Mine({cls.__name__}): {name} = ...",
        )

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        raise InjectionError(
            f"{cls.__name__} cannot be instantiated",
            why="an injector is a description; reading one of its attributes builds it",
            fix=f"Write {cls.__name__}.tensor_quant, or pass the class itself to a layer.",
        )

    def __contains__(cls, name: str) -> bool:
        return find(cls, name) is not None

    def __dir__(cls) -> list[str]:
        return sorted({*super().__dir__(), *names_of(cls), "let"} - {OWN, OVERRIDE, OUTER})

    def __repr__(cls) -> str:
        return f"<injector {cls.__qualname__}>"

    def __str__(cls) -> str:
        return render(cls)


class Injector(metaclass=InjectorType):
    """Base of all quantizers that wire themselves.

    >>> class Scale:
    ...     def __init__(self, start): self.start = start
    >>> class Quantizer(Injector):
    ...     scale = Scale
    ...     start = 0.1
    >>> Quantizer.scale.start
    0.1
    >>> Quantizer.let(start=0.5).scale.start
    0.5
    >>> print(Quantizer)
    Quantizer
    └── scale: Scale
        └── start = 0.1
    """

    @classmethod
    def let(cls, **overrides: Any) -> type[Injector]:
        """The same injector with some attributes replaced or added; the original stays as it is.

        Raises:
            InjectionError: for a name that starts with an underscore.
        """
        for name in overrides:
            if not is_injectable(name):
                raise InjectionError(
                    f"{name!r} cannot be an attribute of an injector",
                    where=cls.__name__,
                    why="names that start with an underscore, and let, are its own",
                    fix="Choose another name.",
                )
        if not overrides:
            return cls
        body = {**overrides, "__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
        derived: Any = InjectorType(cls.__name__, (cls,), body, override=True)
        return derived  # type: ignore[no-any-return]


def _restore(base: type[Injector], overrides: dict[str, Any]) -> type[Injector]:
    return base.let(**overrides)


def _reduce(injector: InjectorType) -> str | tuple[Any, ...]:
    """Classes that can be imported pickle by their name, those made by ``let`` as their base and what it set."""
    if not is_override(injector):
        return injector.__qualname__
    return _restore, (injector.__mro__[1], dict(own_attributes(injector)))


copyreg.pickle(InjectorType, _reduce)  # type: ignore[arg-type]
