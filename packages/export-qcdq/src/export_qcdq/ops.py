"""The two ops that a program is rewritten into before it is converted to ONNX, and the ONNX nodes that each becomes.

They differ from the dialect in what ONNX wants to know beforehand: scales that are scalars or vectors, zero-points and bounds of
the integer type, and the axis of the channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from quant_core.export.onnx import Translation, mark

_library = torch.library.Library("qcdq", "DEF")
_library.define(
    "quantize(Tensor x, Tensor scale, Tensor zero_point, Tensor[] bounds, *, int axis, str name) -> Tensor",
    tags=torch.Tag.pt2_compliant_tag,
)
_library.define(
    "dequantize(Tensor integers, Tensor scale, Tensor? zero_point, *, int axis) -> Tensor",
    tags=torch.Tag.pt2_compliant_tag,
)

QUANTIZE = torch.ops.qcdq.quantize.default
DEQUANTIZE = torch.ops.qcdq.dequantize.default


def _quantize_shape(
    x: Tensor, scale: Tensor, zero_point: Tensor, bounds: list[Tensor], *, axis: int, name: str
) -> Tensor:
    return torch.empty_like(x)


def _dequantize_shape(integers: Tensor, scale: Tensor, zero_point: Tensor | None, *, axis: int) -> Tensor:
    return torch.empty_like(integers, dtype=scale.dtype)


torch.library.register_fake("qcdq::quantize", _quantize_shape, lib=_library)
torch.library.register_fake("qcdq::dequantize", _dequantize_shape, lib=_library)


def translations(opset: int) -> dict[Any, Translation]:
    """The ONNX nodes of both ops in a version of the standard operators: Q → (Clip) → DQ, and DQ alone."""
    import onnxscript

    op = onnxscript.values.Opset("", opset)

    def quantize(x: Any, scale: Any, zero_point: Any, bounds: Any, axis: int, name: str) -> Any:
        integers = op.QuantizeLinear(x, scale, zero_point, axis=axis)
        if bounds:
            integers = op.Clip(integers, *bounds)
        return mark(op.DequantizeLinear(integers, scale, zero_point, axis=axis), name)

    def dequantize(integers: Any, scale: Any, zero_point: Any, axis: int) -> Any:
        operands = (integers, scale) if zero_point is None else (integers, scale, zero_point)
        return op.DequantizeLinear(*operands, axis=axis)

    return {QUANTIZE: quantize, DEQUANTIZE: dequantize}
