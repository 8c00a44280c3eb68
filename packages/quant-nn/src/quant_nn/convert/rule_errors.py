"""Rules that do nothing are errors: those that are for no layer, and those that later rules override everywhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from quant_core.errors import ConfigurationError, UnknownNameError, nearest
from quant_core.export.provenance import public_name
from quant_nn.convert.matching import Decision, has_name, has_type
from quant_nn.convert.rule import Rule, label

_SHOWN = 4


def check_matched(decisions: Sequence[Decision], rules: Sequence[Rule], table: Iterable[type]) -> None:
    """Refuse rules that are for no layer.

    Raises:
        UnknownNameError: lists them all, each with what comes near.
    """
    idle = []
    for number, rule in enumerate(rules):
        matched = [decision for decision in decisions if number in decision.rules]
        takes_all = rule.exclude or rule.layer is not None
        if not rule.optional and not any(takes_all or decision.site.entries for decision in matched):
            idle.append((label(rule, number), rule, matched))
    if not idle:
        return
    raise UnknownNameError(
        "1 rule is for no layer of the model" if len(idle) == 1 else f"{len(idle)} rules are for no layer of the model",
        where=", ".join(name for name, _, _ in idle),
        why="\n".join(f"{name}: {_why(rule, matched, decisions)}" for name, rule, matched in idle),
        fix="\n".join(dict.fromkeys(_fix(rule, matched, decisions, table) for _, rule, matched in idle)),
    )


def check_effective(decisions: Sequence[Decision], rules: Sequence[Rule]) -> None:
    """Refuse rules of which something is overridden on each layer that they are for.

    Raises:
        ConfigurationError: names the rule, and the one that contradicts it.
    """
    for number, rule in enumerate(rules):
        matched = [decision for decision in decisions if number in decision.rules]
        if rule.optional or not matched:
            continue
        contradiction = next(_overridden(number, rule, matched), None)
        if contradiction is None:
            continue
        what, other, key = contradiction
        place = label(rule, number) if key is None or rule.source is None else rule.source.of(key)
        raise ConfigurationError(
            f"two rules contradict each other: {what}",
            where=f"{place} and {label(rules[other], other)}",
            why=f"the later one overrides the earlier one on each layer that it is for: {_paths(matched)}",
            fix="Remove one of them, or say with names or types which layers the later one is for.",
        )


def _overridden(number: int, rule: Rule, matched: Sequence[Decision]) -> Iterator[tuple[str, int, str | None]]:
    if rule.exclude:
        if all(decision.replaces for decision in matched):
            yield "one excludes what the other replaces", max(_last(decision) for decision in matched), "exclude"
        return
    kept = [decision for decision in matched if decision.replaces]
    if not kept:
        excluding = [decision.excluded_by for decision in matched if decision.excluded_by is not None]
        yield "one replaces what the other excludes", max(excluding), None
    for key, own in rule.options.items():
        if kept and all(_differ(decision.options[key], (own, number)) for decision in kept):
            value, other = kept[0].options[key]
            yield f"{key}={own!r} and {key}={value!r}", other, key
        off = [decision.switched_off(key) for decision in kept]
        if off and off[0] is not None and None not in off:
            yield f"{key}={own!r} and a quantizer that is switched off", off[0], key
    if rule.layer is not None and kept and all(decision.layer != (rule.layer, number) for decision in kept):
        other_layer = kept[0].layer
        assert other_layer is not None  # this rule names one, and was overridden
        yield f"layer={rule.layer!r} and layer={other_layer[0]!r}", other_layer[1], "layer"


def _differ(final: tuple[Any, int], own: tuple[Any, int]) -> bool:
    return final[1] != own[1] and final[0] != own[0]


def _last(decision: Decision) -> int:
    return decision.rules[-1]


def _why(rule: Rule, matched: Sequence[Decision], decisions: Sequence[Decision]) -> str:
    """What comes near to a rule."""
    if matched:
        return f"nothing is registered for the types of {_paths(matched, types=True)}"
    by_name = [decision for decision in decisions if _named(rule, decision)]
    by_type = [decision for decision in decisions if has_type(rule, *_type_names(decision))]
    if rule.types and rule.names and by_name and by_type:
        return f"names are for {_paths(by_name, types=True)}; types are for {_paths(by_type)}; no layer is both"
    if rule.behind and by_name and by_type:
        return f"none of {_paths([one for one in by_type if _named(rule, one)])} takes what {' or '.join(rule.behind)} gives"
    parts = []
    if rule.names and not by_name:
        parts.append(f"no module has a path like {' or '.join(map(repr, rule.names))}")
    if rule.types and not by_type:
        parts.append(f"no layer has the type {' or '.join(rule.types)}")
    return "; ".join(parts)


def _fix(rule: Rule, matched: Sequence[Decision], decisions: Sequence[Decision], table: Iterable[type]) -> str:
    if matched:
        return "Quantized layers are registered for " + ", ".join(sorted(kind.__name__ for kind in table)) + "."
    close: list[str] = []
    if rule.names and not any(_named(rule, decision) for decision in decisions):
        paths = [path for decision in decisions for path in decision.site.paths]
        close += [one for pattern in rule.names for one in nearest(pattern, [*paths, *_containers(paths)])]
    if rule.types and not any(has_type(rule, *_type_names(decision)) for decision in decisions):
        kinds = [name for decision in decisions for name in _type_names(decision)]
        close += [one for kind in rule.types for one in nearest(kind, kinds)]
    if close:
        return f"Did you mean {' or '.join(map(repr, dict.fromkeys(close)))}?"
    kinds = sorted({decision.site.kind.__name__ for decision in decisions if decision.site.entries})
    have = f"layers of the types {', '.join(kinds)}" if kinds else "no layer that a quantized one is registered for"
    return f"The model has {have}. Set optional for a rule that may be for none."


def _named(rule: Rule, decision: Decision) -> bool:
    return any(has_name(rule, path) for path in decision.site.paths)


def _type_names(decision: Decision) -> tuple[str, str]:
    return decision.site.kind.__name__, decision.site.type_name


def _containers(paths: Iterable[str]) -> Iterator[str]:
    for path in paths:
        parts = path.split(".")
        yield from (".".join(parts[:length]) for length in range(1, len(parts)))


def _paths(decisions: Sequence[Decision], *, types: bool = False) -> str:
    shown = [
        f"{one.site.place} ({public_name(one.site.kind)})" if types else one.site.place for one in decisions[:_SHOWN]
    ]
    return ", ".join(shown) + (f" and {len(decisions) - _SHOWN} more" if len(decisions) > _SHOWN else "")
