"""Rules in files: TOML, or YAML where it is installed.

A file has a list ``rules``; the keys of each rule are the attributes of :class:`~quant_nn.Rule`::

    [[rules]]
    types = ["Conv2d", "Linear"]
    names = ["features.*"]
    options.weight_bit_width = 4
    options.weight_quant = "Int8WeightPerChannelFloat"
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from quant_core.errors import ConfigurationError, LoadError, QuantError, UnknownNameError, did_you_mean
from quant_core.plugins import Registry, registry
from quant_nn.convert.rule import Rule, Source
from quant_nn.convert.rule_lines import Read, read_toml, read_yaml
from quant_nn.convert.rule_options import is_quantizer_option, resolved
from quant_nn.convert.rule_text import toml_text, yaml_text

_KEYS: Final = tuple(part.name for part in fields(Rule) if part.name != "source")
_READERS: Final = {".toml": read_toml, ".yaml": read_yaml, ".yml": read_yaml}
_WRITERS: Final = {".toml": toml_text, ".yaml": yaml_text, ".yml": yaml_text}


def read_rules(path: str | Path, *, plugins: Registry | None = None) -> tuple[Rule, ...]:
    """The rules of a file.

    Args:
        path: a file that ends in ``.toml``, ``.yaml`` or ``.yml``.
        plugins: the registry whose quantizers may be named; the process-wide one by default.

    Law: ``read_rules(path) == rules`` after ``write_rules(rules, path)``.

    Raises:
        LoadError: when the file cannot be read, is not well formed, or needs a library that is not installed.
        UnknownNameError: for a key or a quantizer that is not known: with file, line and the nearest known word.
        ConfigurationError: for a value of the wrong kind: with file and line.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "rules.toml")
    >>> _ = path.write_text('[[rules]]\\ntypes = "Linear"\\noptions.weight_bit_width = 4\\n')
    >>> read_rules(path)
    (Rule(types=('Linear',), options={'weight_bit_width': 4}),)
    """
    file = Path(path)
    reader = _by_suffix(file, _READERS)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as failure:
        raise LoadError(
            "the file of rules cannot be read",
            where=str(file),
            why=f"{type(failure).__name__}: {failure}",
            fix="Check the path; rules are a text file in UTF-8.",
        ) from failure
    read = reader(text, file)
    _check_top(read, file)
    return tuple(
        _rule(one, read, number, file, plugins or registry()) for number, one in enumerate(read.found["rules"])
    )


def write_rules(rules: Iterable[Rule], path: str | Path) -> None:
    """Write rules to a file, so that :func:`read_rules` gives equal ones.

    Args:
        rules: the rules.
        path: a file that ends in ``.toml``, ``.yaml`` or ``.yml``.

    Raises:
        ConfigurationError: when a rule holds an object that has no name, such as a quantizer made with ``let``.
        LoadError: when the suffix is another one, or YAML is not installed.
    """
    file = Path(path)
    writer = _by_suffix(file, _WRITERS)
    file.write_text(writer([_plain(rule, number) for number, rule in enumerate(rules)]), encoding="utf-8")


def _by_suffix(file: Path, known: Mapping[str, Any]) -> Any:
    if file.suffix.lower() in known:
        return known[file.suffix.lower()]
    raise LoadError(
        f"a file of rules does not end in {file.suffix!r}",
        where=str(file),
        why=f"its format is told by its name: {', '.join(known)}",
        fix="Name it rules.toml, for example.",
    )


def _check_top(read: Read, file: Path) -> None:
    """At the top there is a list of rules, and nothing else."""
    unknown = next((key for key in read.found if key != "rules"), None)
    if unknown is not None:
        raise UnknownNameError(
            f"unknown key {unknown!r}",
            where=f"{file.name}:{read.line((unknown,))}",
            why="at the top of a file of rules there is only the list 'rules'",
            fix="Begin each rule with [[rules]], and write its keys below.",
        )
    rules = read.found.get("rules")
    if not isinstance(rules, list) or not all(isinstance(one, dict) for one in rules) or not rules:
        raise ConfigurationError(
            "the file holds no rules",
            where=f"{file.name}:{read.line(('rules',))}",
            why="'rules' is a list of tables, with at least one",
            fix="Begin each rule with [[rules]], and write its keys below.",
        )


def _rule(given: Mapping[str, Any], read: Read, number: int, file: Path, plugins: Registry) -> Rule:
    place = ("rules", number)
    options = given.get("options", {})
    lines = {key: read.line((*place, key)) for key in given}
    lines |= {key: read.line((*place, "options", key)) for key in options} if isinstance(options, dict) else {}
    source = Source(file=file.name, line=read.line(place), lines=lines)
    unknown = next((key for key in given if key not in _KEYS), None)
    if unknown is not None:
        raise UnknownNameError(
            f"unknown key {unknown!r}",
            where=source.of(unknown),
            why="it is no key of a rule; options of layers stand below options",
            fix=did_you_mean(unknown, _KEYS),
        )
    rule = Rule(**given, source=source)
    for key, found in rule.options.items():
        try:
            resolved(key, found, plugins)
        except QuantError as error:
            raise error.at(source.of(key)) from None
    return rule


def _plain(rule: Rule, number: int) -> dict[str, Any]:
    """A rule as text files hold it."""
    unnamed = [(key, found) for key, found in rule.options.items() if not _has_text(key, found)]
    unnamed += [("layer", rule.layer)] if isinstance(rule.layer, type) else []
    for key, found in unnamed:
        raise ConfigurationError(
            f"{key}={found!r} cannot be written to a file",
            where=f"rule {number + 1}",
            why="a file holds numbers, words, names of classes that can be imported, and 'none' for a quantizer",
            fix="Define a class at the top of a module, or register it as a quantizer; leave None out where it is the default.",
        )
    given = {key: getattr(rule, key) for key in _KEYS}
    options = {key: "none" if found is None else found for key, found in rule.options.items()}
    return {key: found for key, found in {**given, "options": options}.items() if found}


def _has_text(key: str, found: Any) -> bool:
    if isinstance(found, tuple):
        return all(_has_text("", one) for one in found)
    return is_quantizer_option(key) if found is None else isinstance(found, bool | int | float | str)
