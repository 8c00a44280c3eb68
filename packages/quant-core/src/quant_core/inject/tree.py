"""Printing what an injector would build, without building it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from quant_core.inject.attributes import find, is_injector, names_of
from quant_core.inject.signature import needs
from quant_core.inject.this import This
from quant_core.inject.value import value

_LONGEST = 60


def render(injector: type) -> str:
    """The injector as a tree: what nothing else is built from, with what it is built from, down to plain values."""
    lines = [injector.__qualname__.rpartition("<locals>.")[2]]
    names = names_of(injector)
    below = {need for name in names for need, _ in _node(name, injector, (), False)[1]}
    roots = [name for name in names if name not in below] or names
    lines += _branches([(name, False) for name in roots], injector, (), "")
    return "\n".join(lines)


def _branches(
    names: list[tuple[str, bool]], injector: type, above: tuple[str, ...], indent: str
) -> Iterator[str]:
    for index, (name, optional) in enumerate(names):
        last = index == len(names) - 1
        label, below = _node(name, injector, above, optional)
        yield f"{indent}{'└── ' if last else '├── '}{label}"
        yield from _branches(below, injector, (*above, name), indent + ("    " if last else "│   "))


def _node(name: str, injector: type, above: tuple[str, ...], optional: bool) -> tuple[str, list[tuple[str, bool]]]:
    """The label of an attribute, and the attributes that it is built from."""
    found = find(injector, name)
    if found is None:
        return f"{name} {'(default)' if optional else '(missing)'}", []
    if name in above:
        return f"{name} (depends on itself)", []
    raw = found[1]
    if isinstance(raw, value):
        return f"{name}: computed", [(need.name, need.optional) for need in needs(raw.function)]
    if is_injector(raw):
        return f"{name}: injector {raw.__name__}", []
    if isinstance(raw, type):
        below = [] if name.endswith("_class") else [(need.name, need.optional) for need in needs(raw)]
        return f"{name}: {raw.__name__}", below
    return f"{name} = {_short(raw)}", []


def _short(raw: Any) -> str:
    text = repr(raw) if isinstance(raw, This) else " ".join(repr(raw).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
