"""``--option KEY=VALUE``: options of a target."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from quant_core.cli.errors import ArgumentError


def parse_options(texts: Sequence[str]) -> dict[str, Any]:
    """Read options; a value that is JSON is read as JSON, and everything else is a string.

    Raises:
        ArgumentError: when a text is not ``KEY=VALUE``, or a key is given twice.

    >>> parse_options(["opset_version=19", "name=net", "fast=true"])
    {'opset_version': 19, 'name': 'net', 'fast': True}
    """
    options: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise ArgumentError(
                f"{text!r} is not an option",
                where="--option",
                why="an option of a target is KEY=VALUE",
                fix="Write, for example, --option opset_version=19.",
            )
        if key in options:
            raise ArgumentError(
                f"the option {key!r} is given twice",
                where="--option",
                why=f"it is {options[key]!r} first and {_value(value)!r} then",
                fix="Leave one of them out.",
            )
        options[key] = _value(value)
    return options


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
