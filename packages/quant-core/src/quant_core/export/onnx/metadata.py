"""What a file says of where it comes from: target, options, versions, and the bit widths that its types do not tell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Final

TARGET: Final = "quant.target"
OPTIONS: Final = "quant.options"
VERSIONS: Final = "quant.versions"
BIT_WIDTHS: Final = "quant.bit_widths"


def describe(target: str, producer: str, options: Mapping[str, Any], bit_widths: Mapping[str, int]) -> dict[str, str]:
    """The metadata of a file, by key.

    Args:
        target: the target that writes it.
        producer: the distribution of the target.
        options: the options of the target, with their defaults.
        bit_widths: the widths that are not those of the types, by the name of the parameter, or by the name of the node that
            quantizes, without its operator.

    >>> describe("qcdq", "quant-core", {"opset_version": 18}, {"conv1.weight": 4})["quant.bit_widths"]
    '{"conv1.weight":4}'
    """
    found = {
        TARGET: target,
        OPTIONS: _json(options),
        VERSIONS: _json({name: version(name) for name in (producer, "quant-core")}),
    }
    if bit_widths:
        found[BIT_WIDTHS] = _json(bit_widths)
    return {key: found[key] for key in sorted(found)}


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value), sort_keys=True, separators=(",", ":"))
