"""Storing weights two or four in a byte."""

from __future__ import annotations

from typing import Any

from export_qcdq.ops import STORAGE
from export_qcdq.options import NARROWEST
from quant_core.export import Quantizer


def storage(quantizer: Quantizer, opset: int) -> str:
    """The packed ONNX type that holds the integers of a weight; empty where there is none smaller than a byte.

    The zero-point is of the same type.
    """
    assert quantizer.bit_width is not None
    bits = 2 if quantizer.op == "quant::binary" else int(quantizer.bit_width)
    prefix = "" if quantizer.signed else "U"
    if bits <= 2 and opset >= NARROWEST:
        return f"{prefix}INT2"
    return f"{prefix}INT4" if bits <= 4 else ""


def pack(model: Any) -> None:
    """Store the integers of an ``onnx_ir`` model that are so marked in their packed type, in place."""
    from onnxscript import ir

    for node in model.graph.all_nodes():
        kind = node.outputs[0].metadata_props.get(STORAGE)
        if kind is None:
            continue
        dtype = ir.DataType[kind]
        for value in (node.inputs[0], node.inputs[2] if len(node.inputs) > 2 else None):
            if value is not None:
                array = value.const_value.numpy()
                value.const_value = ir.Tensor(array.astype(dtype.numpy()), dtype=dtype, name=value.name)
                value.dtype = dtype
