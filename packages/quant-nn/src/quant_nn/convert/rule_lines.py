"""Text files of rules, with the line of each key."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from quant_core.errors import ConfigurationError, LoadError

Path_ = tuple[str | int, ...]
_TABLE: Final = re.compile(r"\s*\[\[\s*rules\s*\]\]")
_OPTIONS: Final = re.compile(r"\s*\[\s*rules\s*\.\s*options\s*\]")
_KEY: Final = re.compile(r"""\s*(options\s*\.\s*)?["']?([\w-]+)["']?\s*[=.]""")


@dataclass(frozen=True, kw_only=True)
class Read:
    """What a file holds.

    Attributes:
        found: its tables, lists and values.
        lines: the line of what stands under a sequence of keys and numbers.
    """

    found: dict[str, Any]
    lines: dict[Path_, int]

    def line(self, path: Path_) -> int:
        """The line of what stands under ``path``, or else that of what contains it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def read_toml(text: str, file: Path) -> Read:
    """A TOML file.

    Raises:
        LoadError: when it is not well formed; says the line.
    """
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as failure:
        raise _malformed(file, str(failure)) from failure
    return Read(found=found, lines=dict(_toml_lines(text)))


def _toml_lines(text: str) -> Iterator[tuple[Path_, int]]:
    """The lines of tables and keys, as far as each begins a line; the parser of Python keeps none."""
    place: Path_ = ()
    for number, line in enumerate(text.splitlines(), start=1):
        rule = next((part for part in reversed(place) if isinstance(part, int)), -1)
        if _TABLE.match(line):
            place = ("rules", rule + 1)
            yield place, number
        elif _OPTIONS.match(line):
            place = ("rules", rule, "options")
            yield place, number
        elif (found := _KEY.match(line)) is not None:
            inner = ("options",) if found[1] else ()
            yield (*place, *inner, found[2]), number


def read_yaml(text: str, file: Path) -> Read:
    """A YAML file.

    Raises:
        LoadError: when it is not well formed, or YAML is not installed.
        ConfigurationError: when a key stands twice in one place.
    """
    yaml = import_yaml(file)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        found = yaml.safe_load(text)
    except yaml.YAMLError as failure:
        mark = getattr(failure, "problem_mark", None)
        line = "" if mark is None else f" (at line {mark.line + 1}, column {mark.column + 1})"
        raise _malformed(file, f"{getattr(failure, 'problem', failure)}{line}") from failure
    lines = dict(_yaml_lines(node, (), file)) if node is not None else {}
    return Read(found=found if isinstance(found, dict) else {"rules": found}, lines=lines)


def _yaml_lines(node: Any, path: Path_, file: Path) -> Iterator[tuple[Path_, int]]:
    yield path, node.start_mark.line + 1
    if node.id == "mapping":
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                raise ConfigurationError(
                    f"{key.value!r} stands twice",
                    where=f"{file.name}:{key.start_mark.line + 1}",
                    why="the second one would win without a word",
                    fix="Remove one of them.",
                )
            seen.add(key.value)
            yield from _yaml_lines(value, (*path, key.value), file)
            yield (*path, key.value), key.start_mark.line + 1
    elif node.id == "sequence":
        for number, value in enumerate(node.value):
            yield from _yaml_lines(value, (*path, number), file)


def import_yaml(file: Path) -> Any:
    """The YAML library.

    Raises:
        LoadError: when it is not installed; says what to install.
    """
    try:
        import yaml  # optional
    except ImportError as missing:
        raise LoadError(
            "YAML is not installed",
            where=file.name,
            why="rules in YAML need the library PyYAML",
            fix="Install it: pip install 'quant-nn[yaml]', or write the rules in TOML.",
        ) from missing
    return yaml


def _malformed(file: Path, reason: str) -> LoadError:
    line = re.search(r"line (\d+)", reason)
    return LoadError(
        "the file of rules is not well formed",
        where=f"{file.name}:{line[1]}" if line is not None else file.name,
        why=reason,
        fix="Correct this line.",
    )
