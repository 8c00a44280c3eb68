"""Shorthands: keywords and words of an injector that stand for other attributes, such as ``quant_type = "binary"``.

The table from keyword and word to what they stand for is data that plugins register, see
:class:`quant_core.plugins.Shorthand`. Here it is applied: a word acts as if what it stands for had been written in its place,
so that it overrides what is inherited, and is overridden further down. A keyword that something in the quantizer reads by that
name is an option of the quantizer itself, and no shorthand.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from enum import Enum
from typing import Any, NamedTuple

from quant_core.errors import ConfigurationError, UnknownNameError, did_you_mean
from quant_core.inject.attributes import (
    enclosure_of,
    find,
    is_injector,
    layers,
    names_of,
    own_attributes,
    title,
)
from quant_core.inject.signature import needs, short_name
from quant_core.inject.this import This, levels_of, steps_of
from quant_core.inject.value import value
from quant_core.plugins import Shorthand, load_attribute, registry

_CACHE = "_settings_of_words"
_FUNCTION = "act_impl"
"""The function of an activation layer. Its bounds are those of what is quantized, but do not choose how."""


class Setting(NamedTuple):
    """What a shorthand puts in the place of an attribute.

    Attributes:
        raw: what stands there.
        keyword: the keyword that stands for it.
        word: its word, ``None`` for a keyword that takes any value.
        along: whether it only goes along with what the keyword is for.
    """

    raw: Any
    keyword: str
    word: str | None
    along: bool = False

    def __str__(self) -> str:
        return self.keyword if self.word is None else f"{self.keyword}={self.word!r}"


class Found(NamedTuple):
    """What stands under a name, and the shorthand that put it there, if one did."""

    raw: Any
    setting: Setting | None = None


def lookup(injector: type, name: str, prefix: str = "") -> Found | None:
    """What stands under a name once all shorthands are applied; ``None`` when nothing does.

    Args:
        injector: where to look.
        name: the attribute.
        prefix: what stands before the names of options in messages.

    Raises:
        UnknownNameError: when a keyword has an unknown word.
        ConfigurationError: when a shorthand contradicts what stands beside it.
    """
    if name != "proxy_class":  # it decides what a word means, so that no word can decide it
        setting = settings_of(injector, prefix).get(name)
        if setting is not None:
            return Found(setting.raw, setting)
    written = find(injector, name)
    return None if written is None else Found(written[1])


def settings_of(injector: type, prefix: str = "") -> Mapping[str, Setting]:
    """What the shorthands of an injector put in the place of its attributes; raises as :func:`lookup`."""
    known: Mapping[str, Setting] | None = injector.__dict__.get(_CACHE)
    if known is None:
        used = {name for name in names_of(injector) if name in registry().shorthand_keywords}
        known = _applied(injector, used - _read_by_name(injector, used), prefix) if used else {}
        setattr(injector, _CACHE, known)
    return known


def known_keywords(injector: type) -> Iterator[str]:
    """The keywords that mean something in this injector."""
    kind = kind_of(injector)
    for registered in registry().shorthands.values():
        if registered.item.settings(kind):
            yield registered.item.keyword


def stands_for(injector: type, keyword: str) -> list[str]:
    """The attributes that a keyword of the injector stands for; none when it is no shorthand there."""
    written = find(injector, keyword)
    if written is None or keyword not in set(known_keywords(injector)):
        return []
    return list(_entry(injector, keyword, written[1], "").settings(kind_of(injector)))


def set_by(injector: type, keywords: Collection[str]) -> list[str]:
    """The attributes that some of the injector's keywords put in their place."""
    return [name for name, setting in settings_of(injector).items() if setting.keyword in keywords]


def kind_of(injector: type) -> str:
    """What the injector quantizes, as its ``proxy_class`` says, or that of the injector around it; empty when none does."""
    proxy = find(injector, "proxy_class")
    if proxy is not None:
        return str(getattr(proxy[1], "kind", ""))
    enclosure = enclosure_of(injector)
    return "" if enclosure is None else kind_of(enclosure.session.injector)


def _read_by_name(injector: type, keywords: set[str]) -> set[str]:
    """The keywords that a component or a computed attribute takes as a parameter, or an expression of ``this`` leads to."""
    if not keywords:
        return set()
    raws = [raw for layer in layers(injector) for name, raw in own_attributes(layer).items() if name != _FUNCTION]
    read = {need.name for raw in raws for need in needs_of(raw)}
    read |= {step.name for raw in raws if isinstance(raw, This) for step in steps_of(raw)[:1] if levels_of(raw) == 0}
    return keywords & read


def needs_of(raw: Any) -> tuple[Any, ...]:
    """The parameters of what stands under a name: of a component or of a computed attribute."""
    if isinstance(raw, value):
        return needs(raw.function)
    if isinstance(raw, type) and not is_injector(raw):
        return needs(raw)
    return ()


def _applied(injector: type, keywords: set[str], prefix: str) -> dict[str, Setting]:
    """Go through the classes from the base to the last, and put what each keyword stands for in its place."""
    current: dict[str, Any] = {}
    settings: dict[str, Setting] = {}
    function = find(injector, _FUNCTION)
    bounds = {need.name for need in needs_of(function[1])} if function is not None else set()
    left = set(keywords)
    placed: list[tuple[Mapping[str, Any], list[str]]] = []
    for layer in layers(injector):  # a keyword counts where it was set last
        own = own_attributes(layer)
        here = [name for name in own if name in left]
        left -= set(here)
        placed.append((own, here))
    for own, here in reversed(placed):
        current.update(own)
        for name in own:
            settings.pop(name, None)
        entries = [_entry(injector, keyword, own[keyword], prefix) for keyword in here]
        fixed = set(own)
        for entry in entries:
            for setting_name, setting in _main(entry, kind_of(injector)):
                _refuse_contradiction(injector, own, settings, fixed, setting_name, setting, prefix)
                settings[setting_name], current[setting_name] = setting, setting.raw
                fixed.add(setting_name)
        for entry in entries:
            taken = entry.settings(kind_of(injector))
            for name, item in entry.along.items() if entry.keyword not in bounds else ():
                present = current.get(name)
                takes = {need.name for need in needs_of(present)}
                if name in fixed or isinstance(present, value) or takes & set(taken):
                    continue
                raw = _raw(item)
                if present is not None and not isinstance(raw, type | value):
                    continue  # a number or a mode that a base class chose
                settings[name], current[name] = Setting(raw, entry.keyword, entry.word, along=True), raw
    return settings


def _main(entry: Shorthand, kind: str) -> Iterator[tuple[str, Setting]]:
    for name, item in entry.settings(kind).items():
        yield name, Setting(_raw(item), entry.keyword, entry.word)


def _raw(item: Any) -> Any:
    return load_attribute(item) if isinstance(item, str) and ":" in item else item


def _entry(injector: type, keyword: str, given: Any, prefix: str) -> Shorthand:
    """The line of the table for a keyword and what it was set to."""
    kind = kind_of(injector)
    table = {name: registered.item for name, registered in registry().shorthands.items()}
    if keyword in table and table[keyword].settings(kind):
        return table[keyword]
    word = _word(given)
    entry = table.get(f"{keyword}={word}")
    if entry is not None and entry.settings(kind):
        return entry
    of_kind = f" of a quantizer of the {kind}" if kind else ""
    words = [item.word for item in table.values() if item.keyword == keyword and item.word and item.settings(kind)]
    if not words:
        raise ConfigurationError(
            f"{prefix}{keyword}={given!r} means nothing here",
            why=f"{keyword} is no keyword{of_kind}",
            fix=f"Leave {prefix}{keyword} out.",
        )
    raise UnknownNameError(
        f"{prefix}{keyword}={given!r} is not known",
        why=f"{keyword}{of_kind} is one of {', '.join(sorted(words))}",
        fix=did_you_mean(word, words),
    )


def _word(given: Any) -> str:
    """A word in the spelling of the table; enumerations stand for their value."""
    plain = given.value if isinstance(given, Enum) and isinstance(given.value, str) else given
    return str(plain.name if isinstance(plain, Enum) else plain).lower()


def _refuse_contradiction(
    injector: type,
    own: Mapping[str, Any],
    settings: Mapping[str, Setting],
    fixed: set[str],
    name: str,
    setting: Setting,
    prefix: str,
) -> None:
    if name not in fixed:
        return
    beside = settings[name] if name in settings else Setting(own[name], name, None)
    if beside.raw is setting.raw or (not isinstance(beside.raw, type) and beside.raw == setting.raw):
        return
    other = str(beside) if name in settings else f"{name}={_shown(own[name])}"
    raise ConfigurationError(
        f"{prefix}{setting} contradicts {prefix}{other}",
        where=title(injector),
        why=f"{prefix}{setting} stands for {name}={_shown(setting.raw)}, and both are set in one place",
        fix="Leave one of them out.",
    )


def _shown(raw: Any) -> str:
    return short_name(raw) if isinstance(raw, type) else repr(raw)
