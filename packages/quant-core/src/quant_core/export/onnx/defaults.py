"""Attributes that say what holds without them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

_WINDOW: Final = {"strides": 1, "dilations": 1, "pads": 0, "output_padding": 0}
"""What each number of these attributes is without them; the schemas say so in words."""
_WITH_WEIGHTS: Final = frozenset({"Conv", "ConvInteger", "ConvTranspose", "QLinearConv"})
"""Operators whose weights tell the shape of the kernel."""


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
            if is_default(node.attributes[name], described[name]) or _is_plain_window(node, name):
                node.attributes.pop(name)


def _is_plain_window(node: Any, name: str) -> bool:
    """Whether an attribute says of a window that slides what holds without it."""
    if name == "kernel_shape":
        return node.op_type in _WITH_WEIGHTS
    padding = node.attributes.get("auto_pad")
    if name not in _WINDOW or (padding is not None and padding.as_string() != "NOTSET"):
        return False
    numbers: Sequence[int] = node.attributes[name].value
    return all(number == _WINDOW[name] for number in numbers)
