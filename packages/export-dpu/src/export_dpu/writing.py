"""Writing operations as an ONNX file in a form that PyXIR reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, fx

from export_dpu.form import Form
from export_dpu.operation import Operation, shape_of
from export_dpu.reading import Reading
from quant_core.export.onnx.naming import output_names

IR_VERSION: Final = 6
OPSET: Final = 11
"""Versions of the format and of the standard operators that PyXIR was written for."""
KINDS: Final = ("in", "out", "weights", "biases")


def write(reading: Reading, form: Form) -> tuple[bytes, dict[str, str]]:
    """The bytes of a file, and its own name of each value of a reading."""
    names = _final_names(reading)
    nodes = [_node(operation, form, names) for operation in reading.operations]
    nodes += [helper.make_node("Identity", [names[old]], [new], name=new) for new, old in _repeated(reading)]
    graph = helper.make_graph(
        nodes,
        "dpu",
        [_described(node.name, shape_of(node)) for node in _inputs(reading)],
        [_described(name, shape_of(node)) for name, node in _outputs(reading)],
        [_initializer(reading, name, value, form) for name, value in reading.constants.items()],
        value_info=[
            _described(operation.output, operation.shape)
            for operation in reading.operations
            if names[operation.output] == operation.output
        ],
    )
    imports = [helper.make_opsetid("", OPSET), helper.make_opsetid(form.domain, 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION, producer_name="export-dpu")
    return model.SerializeToString(deterministic=True), names


def _node(operation: Operation, form: Form, names: Mapping[str, str]) -> onnx.NodeProto:
    attributes: dict[str, Any] = dict(operation.attributes)
    kinds = [kind for kind in KINDS if kind in operation.quantization]
    if kinds:
        attributes["vai_quant"] = [f"vai_quant_{kind}" for kind in kinds]
    for kind in kinds:
        attributes[f"vai_quant_{kind}"] = operation.quantization[kind]
    return helper.make_node(
        operation.op_type,
        [names.get(name, name) for name in operation.inputs],
        [names[operation.output]],
        name=operation.name,
        domain=form.domain if kinds else "",
        **attributes,
    )


def _initializer(reading: Reading, name: str, value: Tensor, form: Form) -> onnx.TensorProto:
    array = value.cpu().numpy()
    annotated = any(name in operation.inputs and operation.quantization for operation in reading.operations)
    if annotated:
        array = array.astype("float32" if form.float_weights else "int32")
    return numpy_helper.from_array(array, name)


def _described(name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def _inputs(reading: Reading) -> Iterator[fx.Node]:
    for node in reading.program.graph.find_nodes(op="placeholder"):
        if node.name not in reading.program.constants:
            yield node


def _outputs(reading: Reading) -> Iterator[tuple[str, fx.Node]]:
    """The name of each output, and the node that gives it."""
    taken = {node.name for node in _inputs(reading)} | set(reading.constants)
    taken |= {operation.name for operation in reading.operations}
    for name, node in zip(output_names(reading.program.signature), reading.program.outputs, strict=True):
        number, candidate = 0, name
        while candidate in taken:
            number += 1
            candidate = f"{name}_{number}"
        taken.add(candidate)
        yield candidate, node


def _final_names(reading: Reading) -> dict[str, str]:
    """The name of each value in the file: that of its operation, or of the output that it is."""
    names = {operation.output: operation.output for operation in reading.operations}
    names |= {node.name: node.name for node in _inputs(reading)}
    for name, node in reversed(list(_outputs(reading))):
        names[reading.values[node].name] = name
    return names


def _repeated(reading: Reading) -> Iterator[tuple[str, str]]:
    """Outputs that give what an output before them gives already, with the name of the value."""
    seen: set[str] = set()
    for name, node in _outputs(reading):
        value = reading.values[node].name
        if value in seen:
            yield name, value
        seen.add(value)
