"""Looking up the attributes of an injector, which its metaclass keeps aside from those of an ordinary class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

OWN: Final = "_own_attributes"
OVERRIDE: Final = "_is_override"
OUTER: Final = "_outer_session"


def is_injector(candidate: Any) -> bool:
    """Whether something is an injector class."""
    return isinstance(candidate, type) and OWN in candidate.__dict__


def is_injectable(name: str) -> bool:
    """Whether a name can be an attribute of an injector."""
    return not name.startswith("_") and name != "let"


def own_attributes(injector: type) -> Mapping[str, Any]:
    """The attributes of one class body, or of one ``let``."""
    return injector.__dict__.get(OWN, {})


def is_override(injector: type) -> bool:
    """Whether a class was made by ``let``."""
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


def overrides_of(injector: type) -> dict[str, Any]:
    """What ``let`` set and nothing later replaced."""
    found: dict[str, Any] = {}
    for base in layers(injector):
        if not is_override(base):
            break
        found = {**own_attributes(base), **found}
    return found


def inside(injector: type, session: Any) -> type:
    """The same injector, seen from the session of the one around it."""
    body = {"__module__": injector.__module__, "__qualname__": injector.__qualname__, OUTER: session}
    return type(injector)(injector.__name__, (injector,), body, override=True)  # type: ignore[call-overload, no-any-return]


def outer_session(injector: type) -> Any:
    """The session of the injector around it; ``None`` when it stands alone."""
    return injector.__dict__.get(OUTER)
