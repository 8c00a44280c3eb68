"""``Flatten`` where torch's exporter writes a ``Reshape`` to a constant shape: FINN follows the channels through the former."""

from __future__ import annotations

from typing import Any


def restore_flatten(model: Any) -> None:
    """Write ``Flatten`` for each ``Reshape`` of a batch to rows, in an ``onnx_ir`` model in place."""
    for node in list(model.graph):
        if node.op_type != "Reshape":
            continue
        before, after = node.inputs[0].shape, node.outputs[0].shape
        if before is None or after is None or len(after) != 2 or before[0] != after[0] or len(before) < 2:
            continue
        flatten = type(node)("", "Flatten", [node.inputs[0]], metadata_props=dict(node.metadata_props), num_outputs=1)
        flatten.attributes.add(_axis())
        result, old = flatten.outputs[0], node.outputs[0]
        result.name, result.shape, result.type = old.name, old.shape, old.type
        model.graph.insert_before(node, flatten)
        old.replace_all_uses_with(result, replace_graph_outputs=True)
        shape = node.inputs[1]
        model.graph.remove(node, safe=True)
        if shape.is_initializer() and not shape.uses():
            del model.graph.initializers[shape.name]


def _axis() -> Any:
    from onnxscript import ir

    return ir.AttrInt64("axis", 1)
