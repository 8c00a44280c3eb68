"""What the rules say about each layer."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from torch import fx

from quant_core.errors import ConfigurationError
from quant_nn.convert.ends import at_end, stands_behind
from quant_nn.convert.rule import Place, Rule, label
from quant_nn.convert.rule_options import is_quantizer_option
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

    def switched_off(self, key: str, arguments: Collection[str] = ()) -> int | None:
        """The number of a later rule that says that there is no quantizer which this option could go to.

        Args:
            key: an option, such as ``weight_bit_width``, for which ``weight_quant`` may be ``None``. Activations have options
                without prefix.
            arguments: the arguments of the layer itself, which are no options of quantizers.
        """
        for name, (found, number) in self.options.items():
            prefix = "" if name == "act_quant" and arguments else name.removesuffix("quant")
            others = found is None and is_quantizer_option(name) and name != key and key not in arguments
            if others and key.startswith(prefix) and self.options[key][1] < number:
                return number
        return None

    def read_by(self, arguments: Collection[str]) -> list[str]:
        """The options that a layer with these arguments gets: those of quantizers that are there."""
        return [key for key in self.options if self.switched_off(key, arguments) is None]

    def add(self, number: int, rule: Rule) -> None:
        """Let one more rule have its say; it overrides those before it."""
        self.rules.append(number)
        self.excluded_by = number if rule.exclude else None
        self.options.update({key: (found, number) for key, found in rule.options.items()})
        if rule.layer is not None:
            self.layer = (rule.layer, number)


def decide(found: Sequence[Site], rules: Sequence[Rule], graph: fx.GraphModule | None = None) -> list[Decision]:
    """One decision for each layer, in the order of the model.

    Args:
        found: the layers.
        rules: what is said about them.
        graph: the graph that tells which layers come first and last, in graph mode.
    """
    decisions = [Decision(site=site) for site in found]
    layers = [
        site for site in found if site.entries or any(rule.layer is not None and is_for(rule, site) for rule in rules)
    ]
    for number, rule in enumerate(rules):
        matched = [decision for decision in decisions if is_for(rule, decision.site)]
        if rule.behind:
            matched = _behind(rule, number, matched, layers, graph)
        if rule.place is not None:
            known = [decision for decision in matched if decision.site.entries or rule.layer is not None]
            matched = _at_end(rule.place, known, layers, graph)
        for decision in matched:
            decision.add(number, rule)
    return decisions


def _behind(
    rule: Rule, number: int, matched: list[Decision], layers: Sequence[Site], graph: fx.GraphModule | None
) -> list[Decision]:
    """Of these layers, those behind a layer of the types that the rule names."""
    if graph is None:
        if rule.optional:
            return []
        raise ConfigurationError(
            "what stands before a layer is not known",
            where=label(rule, number) if rule.source is None else rule.source.of("behind"),
            why="behind takes it from the graph of the model",
            fix="Pass graph=True and inputs=(x,), or leave behind out.",
        )
    sources = _paths(site for site in layers if {site.kind.__name__, site.type_name} & {*rule.behind})
    found = stands_behind(graph, _paths(one.site for one in matched), sources, _paths(layers))
    return [one for one in matched if found.intersection(one.site.paths)]


def _at_end(
    place: Place, matched: list[Decision], layers: Sequence[Site], graph: fx.GraphModule | None
) -> list[Decision]:
    """The first or last of the layers: along the graph, or else in the order of the model's modules."""
    if graph is not None:
        ends = at_end(graph, place, _paths(one.site for one in matched), _paths(layers))
        along = [one for one in matched if ends.intersection(one.site.paths)]
        if along:
            return along
    return matched[:1] if place == "first" else matched[-1:]


def _paths(sites: Iterable[Site]) -> set[str]:
    return {path for site in sites for path in site.paths}


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
