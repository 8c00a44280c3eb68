"""What the rules say about each layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from quant_nn.convert.rule import Rule
from quant_nn.convert.sites import Site


@dataclass(kw_only=True)
class Decision:
    """What becomes of one layer.

    Attributes:
        site: the layer.
        rules: the numbers of the rules that are for it, from 0, in their order.
        options: the merged options, and the number of the rule that each comes from.
        layer: the quantized layer that a rule names, and the number of that rule.
        excluded_by: the number of the rule that leaves it as it is.
    """

    site: Site
    rules: list[int] = field(default_factory=list)
    options: dict[str, tuple[Any, int]] = field(default_factory=dict)
    layer: tuple[str | type, int] | None = None
    excluded_by: int | None = None

    @property
    def replaces(self) -> bool:
        """Whether some rule is for it, and none excludes it."""
        return bool(self.rules) and self.excluded_by is None

    def add(self, number: int, rule: Rule) -> None:
        """Let one more rule have its say; it overrides those before it."""
        self.rules.append(number)
        self.excluded_by = number if rule.exclude else None
        self.options.update({key: (found, number) for key, found in rule.options.items()})
        if rule.layer is not None:
            self.layer = (rule.layer, number)


def decide(found: Sequence[Site], rules: Sequence[Rule]) -> list[Decision]:
    """One decision for each layer, in the order of the model."""
    decisions = [Decision(site=site) for site in found]
    for number, rule in enumerate(rules):
        matched = [decision for decision in decisions if is_for(rule, decision.site)]
        if rule.place is not None:
            known = [decision for decision in matched if decision.site.entries or rule.layer is not None]
            matched = known[:1] if rule.place == "first" else known[-1:]
        for decision in matched:
            decision.add(number, rule)
    return decisions


def is_for(rule: Rule, site: Site) -> bool:
    """Whether types and names of a rule are for a layer; of several paths, one is enough."""
    return has_type(rule, site.kind.__name__, site.type_name) and any(has_name(rule, path) for path in site.paths)


def has_type(rule: Rule, *names: str) -> bool:
    """Whether a type of these names, short and full, is one of the rule's."""
    return not rule.types or any(name in rule.types for name in names)


def has_name(rule: Rule, path: str) -> bool:
    """Whether a pattern of the rule fits a path, or that of a module which contains it.

    >>> has_name(Rule(names="features"), "features.0.conv"), has_name(Rule(names="*.conv?"), "block.conv1")
    (True, True)
    """
    parts = path.split(".")
    ancestors = [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
    return not rule.names or any(fnmatchcase(one, pattern) for pattern in rule.names for one in ancestors)
