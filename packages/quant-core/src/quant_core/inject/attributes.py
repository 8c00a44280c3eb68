"""Looking up the attributes of an injector, which its metaclass keeps aside from those of an ordinary class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from quant_core.inject.signature import short_name

OWN: Final = "_own_attributes"
OVERRIDE: Final = "_is_override"
ENCLOSURE: Final = "_enclosure"
RESERVED: Final = frozenset({"let", "mro"})
"""What every injector class can do by itself."""


class Enclosure(NamedTuple):
    """Where a nested injector was found: the build session of the injector around it, and its name there."""

    session: Any
    name: str


def is_injector(candidate: Any) -> bool:
    """Whether something is an injector class."""
    return isinstance(candidate, type) and OWN in candidate.__dict__


def is_injectable(name: str) -> bool:
    """Whether a name can be an attribute of an injector."""
    return not name.startswith("_") and name not in RESERVED


def own_attributes(injector: type) -> Mapping[str, Any]:
    """The attributes of one class body, or of one ``let``."""
    own: Mapping[str, Any] = injector.__dict__[OWN]
    return own


def is_override(injector: type) -> bool:
    """Whether nobody wrote the class: it was made by ``let``, or by reading a nested injector."""
    return bool(injector.__dict__.get(OVERRIDE, False))


def layers(injector: type) -> Iterator[type]:
    """The injectors in the order in which attributes are looked up."""
    return (base for base in injector.__mro__ if is_injector(base))


def find(injector: type, name: str) -> tuple[type, Any] | None:
    """The class that defines an attribute, and what stands there; ``None`` when nothing does."""
    for base in layers(injector):
        own = own_attributes(base)
        if name in own:
            return base, own[name]
    return None


def names_of(injector: type) -> list[str]:
    """All attributes, those of the base first."""
    return list(dict.fromkeys(name for base in reversed(list(layers(injector))) for name in own_attributes(base)))


def written(injector: type) -> type:
    """The most derived class that somebody wrote, beneath all ``let``."""
    return next(base for base in layers(injector) if not is_override(base))


def title(injector: type) -> str:
    """How an injector is called in messages: as the class that somebody wrote."""
    return short_name(written(injector))


def overrides_of(injector: type) -> dict[str, Any]:
    """What ``let`` set on top of the class that somebody wrote."""
    found: dict[str, Any] = {}
    for base in layers(injector):
        if not is_override(base):
            break
        found = {**own_attributes(base), **found}
    return found


def inside(injector: type, enclosure: Enclosure) -> type:
    """The same injector, seen from the one around it, so that ``this << 1`` leads there."""
    body = {"__module__": injector.__module__, "__qualname__": injector.__qualname__, "__doc__": injector.__doc__}
    return type(injector)(injector.__name__, (injector,), {**body, OVERRIDE: True, ENCLOSURE: enclosure})


def enclosure_of(injector: type) -> Enclosure | None:
    """Where a nested injector was found; ``None`` when it stands alone."""
    for base in layers(injector):
        enclosure: Enclosure | None = base.__dict__.get(ENCLOSURE)
        if enclosure is not None or not is_override(base):
            return enclosure
    return None
