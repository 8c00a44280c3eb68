"""From an exported program to an ONNX model, through torch's own exporter."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import torch
from torch import fx
from torch.export import ExportedProgram

from quant_core.errors import UnsupportedError
from quant_core.export.onnx.coupled_gates import couple_gates
from quant_core.export.onnx.divisors import write_out_divisors
from quant_core.export.onnx.external_data import take_out
from quant_core.export.onnx.moved_weights import move_into_weights
from quant_core.export.onnx.naming import MARK, ORIGIN, tidy
from quant_core.export.onnx.older_opset import OLDEST_WRITTEN, write_older
from quant_core.export.onnx.optimize import optimize
from quant_core.export.onnx.recurrent import recurrent_translations
from quant_core.export.onnx.requirements import ir_version
from quant_core.export.onnx.scan import loop_translations, wrap_loops
from quant_core.export.onnx.torchlib import translations_read_once
from quant_core.export.onnx.unsupported import explain
from quant_core.export.program import Program
from quant_core.export.quiet import quiet

Translation = Callable[..., Any]
"""An onnxscript function that emits the ONNX nodes of one op."""

Step = Callable[[Any], None]
"""A function that changes an ``onnx_ir`` model in place, before names are given."""

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


class Converted(NamedTuple):
    """An ONNX model.

    Attributes:
        content: the bytes of the file.
        names: the name of the ONNX value of each quantizer and of each other node of the program that the file still computes, by
            the node's name.
        data: the bytes of a second file, for a model that does not fit into one; else empty.
    """

    content: bytes
    names: dict[str, str]
    data: bytes

    def in_one_file(self, target: str) -> tuple[bytes, dict[str, str]]:
        """Content and names, for targets whose readers know no second file.

        Raises:
            UnsupportedError: when the model does not fit into one.
        """
        if self.data:
            raise UnsupportedError(
                f"target {target!r} cannot write this model",
                why="an ONNX file holds 2 GB at most, and the readers of this one know no second file beside it",
                fix="Export parts of the model, or export to a target that writes a second file (qcdq, qop).",
            )
        return self.content, self.names


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
    metadata: Mapping[str, str] = _NOTHING,
    names: Mapping[str, str] = _NOTHING,
    compact: bool = False,
) -> Converted:
    """Convert a program to ONNX.

    Args:
        program: the captured model, for names and places.
        exported: the same, rewritten into ops that ``translations`` or torch's exporter know.
        target: the name of the target, for messages.
        translations: how to emit the ops that torch's exporter does not know.
        opset: the version of the standard ONNX operators.
        producer: the name of the distribution that writes the file.
        steps: what the target does to the simplified model, in order.
        metadata: what the file says of itself.
        names: what modules are called in the file, by path, where it is something else.
        compact: whether the file leaves out what readers infer and shortens what they need not read: values between its nodes are
            numbered and without types, QuantizeLinear and DequantizeLinear are Q and DQ in the names of nodes.

    Raises:
        UnsupportedError: when the model returns something else than tensors, or there is no ONNX operator for operations of it,
            or none in that version; names all of them.
    """
    _check_outputs(program, target)
    exported = write_out_divisors(program, exported, target)
    translations = {**loop_translations(), **recurrent_translations(max(opset, OLDEST_WRITTEN)), **translations}

    def attempt(table: Mapping[Any, Translation]) -> Any:
        return torch.onnx.export(
            exported,
            dynamo=True,
            opset_version=max(opset, OLDEST_WRITTEN),
            custom_translation_table=dict(table),
            verbose=False,
            optimize=False,
        )

    with quiet(), translations_read_once(), _origins_noted(exported):
        try:
            converted = attempt(translations)
        except torch.onnx.OnnxExporterError as failure:
            raise explain(failure, program, exported, target, attempt, translations) from failure
        assert converted is not None
        model = converted.model
        optimize(model)
        move_into_weights(model)
        couple_gates(program)(model)
        wrap_loops(model)
        for step in steps:
            step(model)
        if opset < OLDEST_WRITTEN:
            write_older(model, opset, target)
    model.ir_version = ir_version(opset)
    model.producer_name = producer
    model.producer_version = version(producer)
    values = tidy(model, program.signature, names, compact=compact)
    model.metadata_props.update(metadata)
    _standard_first(model.graph.opset_imports)
    proto = converted.model_proto
    if compact:
        proto.graph.ClearField("value_info")
    data = take_out(proto)
    return Converted(content=proto.SerializeToString(deterministic=True), names=values, data=data)


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
