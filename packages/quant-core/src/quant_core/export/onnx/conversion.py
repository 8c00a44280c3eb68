"""From an exported program to an ONNX model, through torch's own exporter."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.export import ExportedProgram

from quant_core.errors import UnsupportedError
from quant_core.export.onnx.naming import MARK, tidy
from quant_core.export.program import Program
from quant_core.export.quiet import quiet

Translation = Callable[..., Any]
"""An onnxscript function that emits the ONNX nodes of one op."""

IR_VERSION = 10


def mark(value: Any, quantizer: str) -> Any:
    """Remember in a translation which quantizer an ONNX value is the result of; returns the value."""
    value.metadata_props[MARK] = quantizer
    return value


def to_onnx(
    program: Program,
    exported: ExportedProgram,
    *,
    target: str,
    translations: Mapping[Any, Translation],
    opset: int,
    producer: str,
) -> tuple[bytes, dict[str, str]]:
    """Convert a program to ONNX.

    Args:
        program: the captured model, for names and places.
        exported: the same, rewritten into ops that ``translations`` or torch's exporter know.
        target: the name of the target, for messages.
        translations: how to emit the ops that torch's exporter does not know.
        opset: the version of the standard ONNX operators.
        producer: the name of the distribution that writes the file.

    Returns:
        The bytes of the file, and the name of the ONNX value of each quantizer by the quantizer's name.

    Raises:
        UnsupportedError: when torch's exporter has no ONNX operator for an op of the model.
    """
    with quiet():
        try:
            converted = torch.onnx.export(
                exported,
                dynamo=True,
                opset_version=opset,
                custom_translation_table=dict(translations),
                verbose=False,
                optimize=True,
            )
        except torch.onnx.OnnxExporterError as failure:
            raise _unsupported(program, failure, target) from failure
    assert converted is not None
    model = converted.model
    model.ir_version = IR_VERSION
    model.producer_name = producer
    model.producer_version = None
    names = tidy(model, program.signature)
    content: bytes = converted.model_proto.SerializeToString(deterministic=True)
    return content, names


def _unsupported(program: Program, failure: Exception, target: str) -> UnsupportedError:
    """Which op torch's exporter stopped at: its report names the node as it stands in the program."""
    reports = []
    cause: BaseException | None = failure
    while cause is not None:
        reports.append(str(cause))
        cause = cause.__cause__
    text = "\n".join(reports)
    found = re.search(r"call_function\[target=torch\.ops\.([\w.]+)\]", text)
    op = found.group(1) if found else "an operation"
    nodes = [node for node in program.graph.nodes if str(node.target) == op]
    reason = next((line for line in reports[-1].splitlines() if line.strip()), type(failure).__name__)
    return UnsupportedError(
        f"target {target!r} cannot lower {op}",
        where=str(program.where(nodes[0])) if nodes else None,
        why=f"torch's ONNX exporter refuses it: {reason.strip()}",
        fix="Replace the operation, or keep it out of the exported part of the model.",
    )
