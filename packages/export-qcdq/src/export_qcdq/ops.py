"""The ops that a program is rewritten into before it is converted to ONNX, and the ONNX nodes that each becomes.

They differ from the dialect in what ONNX wants to know beforehand: scales that are scalars or vectors, zero-points and bounds of
the integer type, and the axis of the channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor

from export_qcdq.rounding import rounded
from quant_core.export.onnx import Translation, mark

STORAGE: Final = "storage"
"""The metadata of a value that tells in which packed type its integers are stored."""

_library = torch.library.Library("qcdq", "DEF")


def _define(schema: str, fake: Callable[..., Tensor]) -> Any:
    name = schema.partition("(")[0]
    _library.define(f"{schema} -> Tensor", tags=torch.Tag.pt2_compliant_tag)
    torch.library.register_fake(f"qcdq::{name}", fake, lib=_library)
    return getattr(torch.ops.qcdq, name).default


def _like_x(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return torch.empty_like(x)


def _of_zero_point(x: Tensor, scale: Tensor, zero_point: Tensor | None, *_: Any, **__: Any) -> Tensor:
    return torch.empty_like(x, dtype=torch.uint8 if zero_point is None else zero_point.dtype)


def _of_scale(integers: Tensor, scale: Tensor, *_: Any, **__: Any) -> Tensor:
    return torch.empty_like(integers, dtype=scale.dtype)


LEVELS: Final = _define(
    "levels(Tensor x, Tensor scale, Tensor? offset, Tensor? factor, Tensor low, Tensor high, *, str mode)", _like_x
)
"""``clamp(mode((x/scale + offset)·factor), low, high)``, as floats; with a factor, ``x/scale`` is rounded first."""
SIGN: Final = _define("sign(Tensor x)", _like_x)
"""``+1`` from 0 on, else ``−1``."""
TERNARY: Final = _define("ternary(Tensor x, Tensor threshold)", _like_x)
"""``sign(x) · [|x| > threshold]``."""
QUANTIZE: Final = _define(
    "quantize(Tensor x, Tensor scale, Tensor? zero_point, Tensor[] bounds, *, int axis, str name)", _of_zero_point
)
DEQUANTIZE: Final = _define(
    "dequantize(Tensor integers, Tensor scale, Tensor? zero_point, *, int axis, int block, str storage, str name)",
    _of_scale,
)


def translations(opset: int) -> dict[Any, Translation]:
    """The ONNX nodes of each op in a version of the standard operators."""
    import onnxscript

    op = onnxscript.values.Opset("", opset)

    def levels(x: Any, scale: Any, offset: Any, factor: Any, low: Any, high: Any, mode: str) -> Any:
        value = op.Div(x, scale)
        if factor is not None:
            value = op.Round(value)
        if offset is not None:
            value = op.Add(value, offset)
        if factor is not None:
            value = op.Mul(value, factor)
        return op.Clip(rounded(op, value, mode), low, high)

    def sign(x: Any) -> Any:
        zero, one, minus = (op.Constant(value_float=number) for number in (0.0, 1.0, -1.0))
        return op.Where(op.GreaterOrEqual(x, zero), one, minus)

    def ternary(x: Any, threshold: Any) -> Any:
        return op.Mul(op.Sign(x), op.Cast(op.Greater(op.Abs(x), threshold), to=1))

    def quantize(x: Any, scale: Any, zero_point: Any, bounds: Any, axis: int, name: str) -> Any:
        operands = (x, scale) if zero_point is None else (x, scale, zero_point)
        integers = op.QuantizeLinear(*operands, axis=axis)
        integers = op.Clip(integers, *bounds) if bounds else integers
        return mark(integers, name) if name else integers

    def dequantize(integers: Any, scale: Any, zero_point: Any, axis: int, block: int, storage: str, name: str) -> Any:
        operands = (integers, scale) if zero_point is None else (integers, scale, zero_point)
        blocks = {"block_size": block} if block else {}
        value = op.DequantizeLinear(*operands, axis=axis, **blocks)
        if storage:
            value.metadata_props[STORAGE] = storage
        return mark(value, name) if name else value

    return {LEVELS: levels, SIGN: sign, TERNARY: ternary, QUANTIZE: quantize, DEQUANTIZE: dequantize}
