"""The datatypes that FINN reads from the annotations of a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from quant_core.export import Quantizer
from quant_core.export.onnx import Step, origin

_FIELD: Final = "quant_parameter_tensor_names"  # where onnx_ir keeps the annotations of a value
_KEY: Final = "finn_datatype"


def of_quantizer(quantizer: Quantizer) -> str:
    """The datatype of what a quantizer gives: ``BIPOLAR``, ``INT<bits>`` or ``UINT<bits>``."""
    if quantizer.op == "quant::binary":
        return "BIPOLAR"
    assert quantizer.bit_width is not None  # constant, as the check has found
    return f"{'INT' if quantizer.signed else 'UINT'}{int(quantizer.bit_width)}"


def of_range(low: int, high: int) -> str:
    """The smallest datatype that holds all integers from ``low`` to ``high``.

    >>> of_range(-8, 7), of_range(-9, 7), of_range(0, 15)
    ('INT4', 'INT5', 'UINT4')
    """
    if low >= 0:
        return f"UINT{max(1, high.bit_length())}"
    return f"INT{1 + max((-low - 1).bit_length(), high.bit_length())}"


def annotate(constants: Mapping[str, str], nodes: Mapping[str, str]) -> Step:
    """A step that notes datatypes in a file.

    Args:
        constants: the datatype of initializers, by their names.
        nodes: that of results, by the name of the node of the program.
    """

    def step(model: Any) -> None:
        found = {name: value for name, value in model.graph.initializers.items() if name in constants}
        for name, value in found.items():
            value.meta[_FIELD] = {_KEY: constants[name]}
        results = {origin(node): node.outputs[0] for node in model.graph}  # the last node of an origin is its result
        for name, value in results.items():
            if name in nodes:
                value.meta[_FIELD] = {_KEY: nodes[name]}

    return step
