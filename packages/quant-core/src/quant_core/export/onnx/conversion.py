"""From an exported program to an ONNX model, through torch's own exporter."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram

from quant_core.errors import UnsupportedError
from quant_core.export.onnx.naming import MARK, ORIGIN, tidy
from quant_core.export.onnx.optimize import optimize
from quant_core.export.onnx.scan import loop_translations, wrap_loops
from quant_core.export.program import Program
from quant_core.export.quiet import quiet

Translation = Callable[..., Any]
"""An onnxscript function that emits the ONNX nodes of one op."""

Step = Callable[[Any], None]
"""A function that changes an ``onnx_ir`` model in place, before names are given."""

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
    steps: Sequence[Step] = (),
) -> tuple[bytes, dict[str, str]]:
    """Convert a program to ONNX.

    Args:
        program: the captured model, for names and places.
        exported: the same, rewritten into ops that ``translations`` or torch's exporter know.
        target: the name of the target, for messages.
        translations: how to emit the ops that torch's exporter does not know.
        opset: the version of the standard ONNX operators.
        producer: the name of the distribution that writes the file.
        steps: what the target does to the simplified model, in order.

    Returns:
        The bytes of the file, and the name of the ONNX value of each quantizer and of each other node of ``exported`` that the
        file still computes, by the node's name.

    Raises:
        UnsupportedError: when the model returns something else than tensors, or torch's exporter has no ONNX operator for an op
            of it.
    """
    _check_outputs(program, target)
    translations = {**loop_translations(), **translations}
    with quiet(), _origins_noted(exported):
        try:
            converted = torch.onnx.export(
                exported,
                dynamo=True,
                opset_version=opset,
                custom_translation_table=dict(translations),
                verbose=False,
                optimize=False,
            )
        except torch.onnx.OnnxExporterError as failure:
            raise _unsupported(program, exported, failure, target) from failure
        assert converted is not None
        model = converted.model
        optimize(model)
        wrap_loops(model)
        for step in steps:
            step(model)
    model.ir_version = IR_VERSION
    model.producer_name = producer
    model.producer_version = None
    names = tidy(model, program.signature)
    _standard_first(model.graph.opset_imports)
    content: bytes = converted.model_proto.SerializeToString(deterministic=True)
    return content, names


def _standard_first(imports: dict[str, int]) -> None:
    """The standard operators come first, because some readers take the first version for theirs without reading its domain."""
    imports.update({"": imports.pop("")} | {domain: imports.pop(domain) for domain in sorted(imports) if domain})


@contextlib.contextmanager
def _origins_noted(exported: ExportedProgram) -> Iterator[None]:
    """Tell torch's exporter the name of each node as if it were a module, because it gives nodes other names."""
    stacks = {node: node.meta.get("nn_module_stack") for node in exported.graph.nodes if node.op == "call_function"}
    for node, stack in stacks.items():
        node.meta["nn_module_stack"] = {**(stack or {}), "origin": (f"{ORIGIN}{node.name}", "origin")}
    try:
        yield
    finally:
        for node, stack in stacks.items():
            node.meta["nn_module_stack"] = stack


def _check_outputs(program: Program, target: str) -> None:
    others = [
        f"output {number} is {value!r} ({type(value).__name__})"
        for number, value in enumerate(program.outputs)
        if not isinstance(value, fx.Node)
    ]
    if others:
        raise UnsupportedError(
            f"target {target!r} cannot lower what the model returns: {', '.join(others)}",
            where=str(program.where(program.graph.output_node())),
            why="an ONNX file returns tensors",
            fix="Return tensors only from the exported model.",
        )


def _unsupported(program: Program, exported: ExportedProgram, failure: Exception, target: str) -> UnsupportedError:
    """Which op torch's exporter stopped at: its report names the node as it stands after its own decompositions."""
    reports = []
    cause: BaseException | None = failure
    while cause is not None:
        reports.append(str(cause))
        cause = cause.__cause__
    text = "\n".join(reports)
    found = re.search(r"call_function\[target=torch\.ops\.([\w.]+)\]", text)
    op = found.group(1) if found else "an operation"
    node = (_find(program.graph, op) or _find_decomposed(exported, op)) if found else None
    reason = next((line for line in reports[-1].splitlines() if line.strip()), type(failure).__name__)
    return UnsupportedError(
        f"target {target!r} cannot lower {op}",
        where=str(program.where(node)) if node else None,
        why=f"torch's ONNX exporter refuses it: {reason.strip()}",
        fix="Replace the operation, or keep it out of the exported part of the model.",
    )


def _find(graph: fx.Graph, op: str) -> fx.Node | None:
    return next((node for node in graph.nodes if str(node.target) == op), None)


def _find_decomposed(exported: ExportedProgram, op: str) -> fx.Node | None:
    """The first node of an op that stands in the graph only after decompositions.

    Torch's exporter takes some of all that torch has; what it stopped at is what the standard ones leave, or else all of them.
    """
    for table in (None, dict(torch._decomp.decomposition_table)):
        with quiet():
            try:
                decomposed = exported.run_decompositions(table)
            except Exception:  # the error that is being explained matters more than its place
                continue
        node = _find(decomposed.graph, op)
        if node is not None:
            return node
    return None
