"""Operators that are not among the standard ones: emitted like those, from a description of their inputs and attributes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

_TENSOR = "tensor(float)"


def custom_op(
    name: str,
    *,
    domain: str,
    version: int,
    inputs: Sequence[str],
    outputs: Sequence[str] = ("y",),
    attributes: Mapping[str, type] | None = None,
) -> Callable[..., Any]:
    """An operator of another domain, to be called in a translation as those of ``onnxscript`` are.

    Args:
        name: its type, such as ``"Quant"``.
        domain: its domain, such as ``"qonnx.custom_op.general"``.
        version: the version of the domain that the file imports.
        inputs: the names of its float tensors, in order.
        outputs: the names of the float tensors that it gives.
        attributes: the name and Python type (``int``, ``float`` or ``str``) of each attribute; all must be given in a call.
    """
    import onnx
    import onnxscript

    schema = onnx.defs.OpSchema
    kinds = {int: schema.AttrType.INT, float: schema.AttrType.FLOAT, str: schema.AttrType.STRING}
    described = schema(
        name,
        domain,
        version,
        inputs=[schema.FormalParameter(word, _TENSOR) for word in inputs],
        outputs=[schema.FormalParameter(word, _TENSOR) for word in outputs],
        attributes=[schema.Attribute(word, kinds[kind]) for word, kind in (attributes or {}).items()],
    )
    op: Callable[..., Any] = onnxscript.values.Op(onnxscript.values.Opset(domain, version), name, described)
    return op
