"""Printing what an injector would build, without building it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from quant_core.inject.attributes import is_injector, names_of
from quant_core.inject.signature import Need, needs, short_name
from quant_core.inject.this import This, levels_of, steps_of
from quant_core.inject.value import value
from quant_core.inject.words import lookup, settings_of

_LONGEST = 60


def render(injector: type) -> str:
    """The injector as a tree: what nothing else is built from, with what it is built from, down to plain values.

    No constructor and no computed attribute is called. What is built once and used in several places is spelled out in
    the first. What a shorthand stands for is shown in its place, with the shorthand behind it.
    """
    shown: set[str] = set()
    lines = [short_name(injector)]
    roots = [Need(name, False, None) for name in _roots(injector)]
    lines += _branches(roots, injector, (), "", shown)
    return "\n".join(lines)


def _roots(injector: type) -> list[str]:
    """What nothing else is built from, and one of each circle that would not be reached from there."""
    settings = settings_of(injector)
    shorthands = {setting.keyword for setting in settings.values()}
    names = list(dict.fromkeys([*(name for name in names_of(injector) if name not in shorthands), *settings]))
    below = {name: {need.name for need in _below(name, injector)} for name in names}
    roots = [name for name in names if not any(name in needed for needed in below.values())]
    reached: set[str] = set()
    for name in [*roots, *names]:
        if name in reached:
            continue
        if name not in roots:
            roots.append(name)
        waiting = [name]
        while waiting:
            current = waiting.pop()
            if current not in reached:
                reached.add(current)
                waiting += below.get(current, ())
    return roots


def _branches(
    children: list[Need], injector: type, above: tuple[str, ...], indent: str, shown: set[str]
) -> Iterator[str]:
    for index, need in enumerate(children):
        last = index == len(children) - 1
        below = _below(need.name, injector)
        label = _label(need, injector)
        if need.name in above:
            label, below = f"{label} (depends on itself)", []
        elif below and need.name in shown:
            label, below = f"{label} (as above)", []
        shown.add(need.name)
        yield f"{indent}{'└── ' if last else '├── '}{label}"
        yield from _branches(below, injector, (*above, need.name), indent + ("    " if last else "│   "), shown)


def _below(name: str, injector: type) -> list[Need]:
    """The attributes that an attribute is built from."""
    found = lookup(injector, name)
    raw = None if found is None else found.raw
    if isinstance(raw, value):
        return list(needs(raw.function))
    if isinstance(raw, This):
        return [Need(str(step.name), False, None) for step in steps_of(raw)[:1] if levels_of(raw) == 0]
    if isinstance(raw, type) and not is_injector(raw) and not name.endswith("_class"):
        return list(needs(raw))
    return []


def _label(need: Need, injector: type) -> str:
    found = lookup(injector, need.name)
    if found is None:
        return f"{need.name} = {_short(need.default)} (default)" if need.optional else f"{need.name}: missing"
    label = _content(need, found.raw)
    return label if found.setting is None else f"{label} ({found.setting})"


def _content(need: Need, raw: Any) -> str:
    if isinstance(raw, value):
        return f"{need.name}: @value({', '.join(parameter.name for parameter in needs(raw.function))})"
    if isinstance(raw, This):
        return f"{need.name}: {raw!r}"
    if is_injector(raw):
        return f"{need.name}: injector {short_name(raw)}"
    if isinstance(raw, type):
        return f"{need.name}{' = ' if need.name.endswith('_class') else ': '}{short_name(raw)}"
    return f"{need.name} = {_short(raw)}"


def _short(raw: Any) -> str:
    text = " ".join(repr(raw).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
