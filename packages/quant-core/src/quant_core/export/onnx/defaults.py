"""Attributes that say what holds without them."""

from __future__ import annotations

from typing import Any


def is_default(attribute: Any, described: Any) -> bool:
    """Whether an attribute of ``onnx_ir`` has the value that its description in the schema gives for a node without it."""
    import onnx

    default = described.default_value
    if default.type == onnx.AttributeProto.UNDEFINED:
        return False
    value: Any = onnx.helper.get_attribute_value(default)
    return bool(attribute.value == (value.decode() if isinstance(value, bytes) else value))


def leave_out_defaults(model: Any) -> None:
    """Drop the attributes of standard operators that have their default value, in place."""
    import onnx

    version = model.graph.opset_imports[""]
    for node in model.graph.all_nodes():
        if node.domain not in ("", "ai.onnx") or not onnx.defs.has(node.op_type, max_inclusive_version=version):
            continue
        described = onnx.defs.get_schema(node.op_type, version, "").attributes
        for name in [name for name in node.attributes if name in described]:
            if is_default(node.attributes[name], described[name]):
                node.attributes.pop(name)
