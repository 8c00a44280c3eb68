"""Rules as text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quant_nn.convert.rule_lines import import_yaml


def toml_text(rules: Sequence[Mapping[str, Any]]) -> str:
    """Rules as TOML, one table for each.

    >>> print(toml_text([{"types": ("Linear",), "options": {"weight_bit_width": 4}}]))
    [[rules]]
    types = ["Linear"]
    options.weight_bit_width = 4
    <BLANKLINE>
    """
    return "\n".join(_table(rule) for rule in rules)


def yaml_text(rules: Sequence[Mapping[str, Any]]) -> str:
    """Rules as YAML."""
    lists = [{key: _lists(found) for key, found in rule.items()} for rule in rules]
    text: str = import_yaml(Path("rules.yaml")).safe_dump({"rules": lists}, sort_keys=False)
    return text


def _table(rule: Mapping[str, Any]) -> str:
    lines = ["[[rules]]"]
    for key, found in rule.items():
        if key == "options":
            lines += [f"options.{_key(option)} = {_value(one)}" for option, one in found.items()]
        else:
            lines.append(f"{key} = {_value(found)}")
    return "\n".join([*lines, ""])


def _key(name: str) -> str:
    return name if name.isidentifier() and name.isascii() else _value(name)


def _value(found: Any) -> str:
    """Text of a value; TOML writes strings as JSON does, and numbers as Python."""
    if isinstance(found, tuple):
        return f"[{', '.join(map(_value, found))}]"
    if isinstance(found, bool):
        return str(found).lower()
    if isinstance(found, str):
        return json.dumps(found, ensure_ascii=False).replace("\x7f", "\\u007F")
    return repr(found)


def _lists(found: Any) -> Any:
    if isinstance(found, Mapping):
        return {key: _lists(one) for key, one in found.items()}
    return [_lists(one) for one in found] if isinstance(found, tuple) else found
