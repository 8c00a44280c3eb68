"""What a file says of where it comes from: target, options, versions, and the bit widths that its types do not tell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Final

from quant_core.export.builder import constant_inputs
from quant_core.export.program import Program

TARGET: Final = "quant.target"
OPTIONS: Final = "quant.options"
VERSIONS: Final = "quant.versions"
BIT_WIDTHS: Final = "quant.bit_widths"


def describe(program: Program, target: str, producer: str, options: Mapping[str, Any]) -> dict[str, str]:
    """The metadata of a file, by key.

    Bit widths are given by the name of the parameter, or by the path of the quantizer of an activation.

    Args:
        program: the model that is written.
        target: the target that writes it.
        producer: the distribution of the target.
        options: the options of the target, with their defaults.
    """
    names = constant_inputs(program.exported)
    operands = {node.name: node.args[0] for node in program.graph.nodes if node.op == "call_function" and node.args}
    widths = {
        (quantizer.where.path if quantizer.integers is None else names[operands[quantizer.name].name]): int(
            quantizer.bit_width
        )
        for quantizer in program.quantizers
        if quantizer.bit_width is not None
    }
    found = {
        TARGET: target,
        OPTIONS: _json(options),
        VERSIONS: _json({name: version(name) for name in (producer, "quant-core")}),
        BIT_WIDTHS: _json(widths),
    }
    return {key: found[key] for key in sorted(found)}


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value), sort_keys=True, separators=(",", ":"))
