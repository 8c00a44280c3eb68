"""The names that something in an injector could read."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, ModuleType
from typing import Any, NamedTuple

from quant_core.inject.attributes import is_injector, layers, own_attributes
from quant_core.inject.signature import needs, short_name
from quant_core.inject.this import This, levels_of, steps_of
from quant_core.inject.value import value
from quant_core.inject.words import settings_of


class Read(NamedTuple):
    """One name that could be read.

    Attributes:
        name: the attribute.
        reader: who reads it.
        certain: false for a word of a function's code, which may be an attribute of something else.
    """

    name: str
    reader: str
    certain: bool = True


def vocabulary(injector: type) -> list[Read]:
    """What the components and computed attributes of an injector could read, those that are overridden included.

    >>> from quant_core.inject import Injector
    >>> class Scale:
    ...     def __init__(self, start, least=0.0): ...
    >>> class Quantizer(Injector):
    ...     scale = Scale
    >>> [(read.name, read.reader) for read in vocabulary(Quantizer.let(scale=None))]
    [('start', 'Scale'), ('least', 'Scale')]
    """
    set_by_words = {name: setting.raw for name, setting in settings_of(injector).items()}
    return [*_reads_of(injector, 0), *_reads_of_attributes(set_by_words, 0)]


def _reads_of(injector: type, depth: int) -> Iterator[Read]:
    """The reads of an injector that concern the one ``depth`` levels around it."""
    for base in layers(injector):
        yield from _reads_of_attributes(own_attributes(base), depth)


def _reads_of_attributes(attributes: Mapping[str, Any], depth: int) -> Iterator[Read]:
    for name, raw in attributes.items():
        if is_injector(raw):
            yield from _reads_of(raw, depth + 1)
        elif isinstance(raw, This):
            yield from _first_step(raw, name, depth)
        elif isinstance(raw, value):
            yield from _reads_of_function(raw.function, depth)
        elif isinstance(raw, type) and not name.endswith("_class") and depth == 0:
            yield from (Read(need.name, short_name(raw)) for need in needs(raw))


def _first_step(expression: This, name: str, depth: int) -> Iterator[Read]:
    steps = steps_of(expression)
    if steps and levels_of(expression) == depth and isinstance(steps[0].name, str):
        yield Read(steps[0].name, f"{name} = {expression!r}")


def _reads_of_function(function: Callable[..., Any], depth: int) -> Iterator[Read]:
    """Its parameters, those of classes that it may return, and the words of its code: it may return ``this.name``."""
    reader = f"@value {short_name(function)}"
    words = list(dict.fromkeys(_words(getattr(inspect.unwrap(function), "__code__", None))))
    if depth == 0:
        yield from (Read(need.name, reader) for need in needs(function))
        for component in _mentioned(inspect.unwrap(function), words):
            yield from (Read(need.name, short_name(component)) for need in needs(component))
    yield from (Read(word, reader, certain=False) for word in words)


def _words(code: CodeType | None) -> Iterator[str]:
    """The global names and attributes that a function mentions, those of the functions in it included."""
    if code is None:
        return
    yield from code.co_names
    yield from code.co_freevars
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _words(constant)


def _mentioned(function: Callable[..., Any], words: list[str]) -> Iterator[type]:
    """The classes that a function mentions: by name, as ``module.name``, or in a table from which it may choose."""
    known: Mapping[str, Any] = {**getattr(function, "__globals__", {}), **_closure(function)}
    for word in words:
        thing = known.get(word)
        candidates: Any = [thing]
        if isinstance(thing, ModuleType):
            candidates = [vars(thing).get(other) for other in words]
        elif isinstance(thing, dict):
            candidates = list(thing.values())
        elif isinstance(thing, list | tuple):
            candidates = thing
        yield from (item for item in candidates if isinstance(item, type) and not is_injector(item))


def _closure(function: Callable[..., Any]) -> dict[str, Any]:
    found = {}
    cells = getattr(function, "__closure__", None) or ()
    for name, cell in zip(function.__code__.co_freevars if cells else (), cells, strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return found
