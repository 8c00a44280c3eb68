"""The names that something in an injector could read, and what follows for names that nothing reads."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from types import CodeType
from typing import Any

from quant_core.errors import UnusedAttributeError, did_you_mean
from quant_core.inject.attributes import is_injector, layers, names_of, overrides_of, own_attributes
from quant_core.inject.signature import needs
from quant_core.inject.this import This, steps_of
from quant_core.inject.value import value


def vocabulary(injector: type) -> dict[str, str]:
    """Each name that a component or a computed attribute of the injector reads, also an overridden one → who reads it."""
    found: dict[str, str] = {}
    for base in layers(injector):
        for name, raw in own_attributes(base).items():
            for read, reader in _reads(name, raw):
                found.setdefault(read, reader)
    return found


def refuse_unused(
    injector: type, consumed: Collection[str], *, reads: Collection[str], prefix: str, where: str | None
) -> None:
    """Raise when an attribute has no reader.

    What ``let`` (and so a layer's keyword) set must have been read in this build; what stands in a class body must be a name
    that some component of the injector could read.

    Raises:
        UnusedAttributeError: for the first such attribute; names the nearest known one.
    """
    known = vocabulary(injector)
    words = {*known, *reads}
    for name in overrides_of(injector):
        if name in consumed or name in reads:
            continue
        if name in known:
            raise UnusedAttributeError(
                f"option {prefix + name!r} has no effect",
                where=where,
                why=f"it is read by {known[name]}, which {injector.__name__} does not use as it is configured",
                fix=f"Leave {prefix + name} out, or use a component that reads it.",
            )
        raise _unknown(f"unknown option {prefix + name!r}", injector, name, words, prefix, where)
    for name in names_of(injector):
        if name not in words and name not in consumed:
            raise _unknown(f"attribute {name!r} is read by nothing", injector, name, words, "", where)


def _unknown(
    what: str, injector: type, name: str, words: Collection[str], prefix: str, where: str | None
) -> UnusedAttributeError:
    return UnusedAttributeError(
        what,
        where=where,
        why=f"no component of {injector.__name__} has a parameter {name!r}",
        fix=did_you_mean(prefix + name, [prefix + word for word in words]),
    )


def _reads(name: str, raw: Any) -> Iterator[tuple[str, str]]:
    if isinstance(raw, value):
        function = raw.function
        reader = f"the computed attribute {name}"
        yield from ((need.name, reader) for need in needs(function))
        for word in _words(function.__code__):
            yield word, reader
            mentioned = _lookup(function, word)
            if isinstance(mentioned, type) and not is_injector(mentioned):
                yield from ((need.name, mentioned.__name__) for need in needs(mentioned))
    elif isinstance(raw, This):
        yield from ((str(step.name), f"the attribute {name}") for step in steps_of(raw) if not step.is_item)
    elif isinstance(raw, type) and not is_injector(raw) and not name.endswith("_class"):
        yield from ((need.name, raw.__name__) for need in needs(raw))


def _words(code: CodeType) -> Iterator[str]:
    """The global names and attributes that a function mentions: it may return ``this.name``, or a class."""
    yield from code.co_names
    yield from code.co_freevars
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _words(constant)


def _lookup(function: Callable[..., Any], word: str) -> Any:
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    if word in cells:
        try:
            return cells[word].cell_contents
        except ValueError:  # not assigned yet
            return None
    return function.__globals__.get(word)
