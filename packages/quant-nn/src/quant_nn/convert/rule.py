"""One rule of a conversion: which layers it is for, and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Literal, get_args

from quant_core.errors import ConfigurationError, did_you_mean
from quant_core.export.provenance import public_name
from quant_nn.convert.rule_options import named, reference

Place = Literal["first", "last"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where in a file a rule stands.

    Attributes:
        file: the name of the file.
        line: the line on which the rule begins.
        lines: the line of each of its keys and options.
    """

    file: str
    line: int
    lines: Mapping[str, int] = field(default_factory=dict)

    def of(self, key: str | None = None) -> str:
        """``rules.toml:7``, the line of a key, or else that of the rule.

        >>> Source(file="rules.toml", line=3, lines={"types": 4}).of("types")
        'rules.toml:4'
        """
        return f"{self.file}:{self.lines.get(key, self.line) if key is not None else self.line}"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Which float layers become quantized ones, and with what options.

    A rule is for a layer if ``types`` and ``names`` both are; one that is not given is for all. Where several rules are for one
    layer, their options are merged, and the later rule wins.

    Attributes:
        types: float types, as classes or by name: ``"Conv2d"`` or ``"torch.nn.Conv2d"``. Subclasses are types of their own.
        names: patterns of module paths, with ``*``, ``?`` and ``[…]``; ``*`` stands for dots as well, and a pattern of a module
            is also one of all that it contains: ``"features"`` is for ``features.0.conv``.
        exclude: leave these layers as they are.
        layer: the name of the quantized layer among those that plugins register, or ``"package.module:Class"``; by default the
            one that is registered for the float type.
        options: arguments of the quantized layer. A quantizer is given as a class, by its registered name, or as
            ``"package.module:attribute"``; ``None`` (``"none"`` in files) switches one off.
        place: of all these layers only the ``"first"`` or ``"last"`` in the order of the model's modules; in graph mode, those
            that an input reaches, or an output comes from, with no other layer between.
        behind: float types: of all these layers only those that take what one of these types gives, with no other layer between.
            It takes graph mode.
        shared: for layers that join several tensors, in graph mode: the layers before them quantize their results by the
            ``input_quant`` of the join, in place of their own ``output_quant``, so that all have one scale.
        optional: the rule may be for no layer, and later rules may override all that it says; otherwise both are errors.
        source: where it was read from; not compared.

    Raises:
        ConfigurationError: for a rule that is for nothing in particular, contradicts itself, or has a value of the wrong kind.

    >>> rule = Rule(types=("Conv2d", "Linear"), names="features.*", options={"weight_bit_width": 4})
    >>> rule
    Rule(types=('Conv2d', 'Linear'), names=('features.*',), options={'weight_bit_width': 4})
    >>> import torch
    >>> Rule(types=torch.nn.Conv2d).types
    ('torch.nn.Conv2d',)
    """

    types: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    exclude: bool = False
    layer: str | type | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    place: Place | None = None
    behind: tuple[str, ...] = ()
    shared: bool = False
    optional: bool = False
    source: Source | None = field(default=None, compare=False)

    def __init__(
        self,
        *,
        types: str | type | Iterable[str | type] = (),
        names: str | Iterable[str] = (),
        exclude: bool = False,
        layer: str | type | None = None,
        options: Mapping[str, Any] = MappingProxyType({}),
        place: Place | None = None,
        behind: str | type | Iterable[str | type] = (),
        shared: bool = False,
        optional: bool = False,
        source: Source | None = None,
    ) -> None:
        put = object.__setattr__
        put(self, "source", source)
        put(self, "types", tuple(self._type(one) for one in _several("types", types, self._where("types"))))
        put(self, "behind", tuple(self._type(one) for one in _several("behind", behind, self._where("behind"))))
        put(self, "names", tuple(_several("names", names, self._where("names"))))
        put(self, "exclude", exclude)
        put(self, "layer", reference(layer) if isinstance(layer, type) else layer)
        put(self, "place", place)
        put(self, "shared", shared)
        put(self, "optional", optional)
        self._check(options)
        put(self, "options", MappingProxyType({key: named(key, found) for key, found in options.items()}))

    def __hash__(self) -> int:
        return hash((self.types, self.names, self.exclude, self.layer, tuple(self.options), self.place))

    def __repr__(self) -> str:
        given = [(part.name, getattr(self, part.name)) for part in fields(self) if part.name != "source"]
        shown = [(name, dict(found) if name == "options" else found) for name, found in given]
        return f"Rule({', '.join(f'{name}={found!r}' for name, found in shown if found)})"

    def __reduce__(self) -> tuple[Any, ...]:
        given = {part.name: getattr(self, part.name) for part in fields(self)}
        return _rule, ({**given, "options": dict(self.options)},)

    def _type(self, one: Any) -> Any:
        return public_name(one) if isinstance(one, type) else one

    def _where(self, key: str) -> str | None:
        return None if self.source is None else self.source.of(key)

    def _check(self, options: Any) -> None:
        for name in ("types", "names", "behind"):
            for one in getattr(self, name):
                if not isinstance(one, str) or not one.strip():
                    raise self._wrong(name, one, "a name, which is not empty")
        for name in ("exclude", "shared", "optional"):
            if not isinstance(getattr(self, name), bool):
                raise self._wrong(name, getattr(self, name), "true or false")
        if self.layer is not None and not (isinstance(self.layer, str | type) and self.layer):
            raise self._wrong("layer", self.layer, "the name of a quantized layer")
        if self.place is not None and self.place not in get_args(Place):
            fix = did_you_mean(str(self.place), get_args(Place))
            raise self._wrong("place", self.place, "'first' or 'last'", fix)
        if not isinstance(options, Mapping) or not all(isinstance(key, str) for key in options):
            raise self._wrong("options", options, "a mapping from names to values")
        if not self.types and not self.names:
            raise ConfigurationError(
                "a rule does not say what it is for",
                where=self._where("rules"),
                why="it has neither types nor names",
                fix="Set types, such as 'Conv2d', or names, such as 'features.*'; names='*' is for all layers.",
            )
        if self.exclude and (options or self.layer is not None):
            raise ConfigurationError(
                "a rule excludes layers and says what becomes of them",
                where=self._where("exclude"),
                why="exclude is set, and so is " + ("options" if options else "layer"),
                fix="Leave one of them out, or make two rules of it.",
            )

    def _wrong(self, name: str, value: Any, kind: str, fix: str = "Correct the value.") -> ConfigurationError:
        return ConfigurationError(
            f"{name} of a rule is {value!r}", where=self._where(name), why=f"it is {kind}", fix=fix
        )


def label(rule: Rule, number: int) -> str:
    """What messages call a rule: its place in a file, or its number, from 1.

    >>> label(Rule(names="*"), 0)
    'rule 1'
    """
    return f"rule {number + 1}" if rule.source is None else rule.source.of()


def _rule(given: dict[str, Any]) -> Rule:
    return Rule(**given)


def _several(name: str, given: Any, where: str | None) -> tuple[Any, ...]:
    """One thing or several."""
    if isinstance(given, str | type):
        return (given,)
    if not isinstance(given, Iterable):
        raise ConfigurationError(
            f"{name} of a rule is {given!r}",
            where=where,
            why="it is a name, or a list of names",
            fix="Write it in quotes.",
        )
    return tuple(given)
