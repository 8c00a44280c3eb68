"""Operators on integers as torch ops that a program is rewritten into, and the ONNX nodes that each becomes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor

from quant_core.export.onnx import Translation, mark

_library = torch.library.Library("qop", "DEF")
_WINDOW = "int[] strides, int[] pads, int[] dilations, int group"


def _define(schema: str, fake: Callable[..., Tensor]) -> Any:
    name = schema.partition("(")[0]
    _library.define(f"{schema} -> Tensor", tags=torch.Tag.pt2_compliant_tag)
    torch.library.register_fake(f"qop::{name}", fake, lib=_library)
    return getattr(torch.ops.qop, name).default


def _convolved(x: Tensor, w: Tensor, window: dict[str, Any], kind: torch.dtype) -> Tensor:
    count = len(window["strides"])
    ends = [window["pads"][axis + side * count] for axis in reversed(range(count)) for side in (0, 1)]
    wide, weight = torch.nn.functional.pad(x.to(torch.float32), ends), w.to(torch.float32)
    none = [0] * count
    strides, dilations, group = window["strides"], window["dilations"], window["group"]
    shape: Tensor = torch.ops.aten.convolution(wide, weight, None, strides, none, dilations, False, none, group)
    return shape.to(kind)


def _linear_conv(x: Tensor, x_scale: Tensor, x_zero: Tensor, w: Tensor, *_: Any, name: str, **window: Any) -> Tensor:
    return _convolved(x, w, window, x.dtype)


def _integer_conv(x: Tensor, w: Tensor, *_: Any, **window: Any) -> Tensor:
    return _convolved(x, w, window, torch.int32)


def _linear_matmul(a: Tensor, a_scale: Tensor, a_zero: Tensor, b: Tensor, *_: Any, name: str) -> Tensor:
    return torch.matmul(a.to(torch.float32), b.to(torch.float32)).to(a.dtype)


def _integer_matmul(a: Tensor, b: Tensor, *_: Any) -> Tensor:
    return torch.matmul(a.to(torch.float32), b.to(torch.float32)).to(torch.int32)


def _of_scale(sums: Tensor, scale: Tensor, *, axis: int) -> Tensor:
    return torch.empty_like(sums, dtype=scale.dtype)


def _like_x(x: Tensor, zero: Tensor, *, name: str) -> Tensor:
    return torch.empty_like(x)


LINEAR_CONV: Final = _define(
    "linear_conv(Tensor x, Tensor x_scale, Tensor x_zero, Tensor w, Tensor w_scale, Tensor w_zero, Tensor y_scale, "
    f"Tensor y_zero, Tensor? bias, Tensor[] bounds, *, {_WINDOW}, str name)",
    _linear_conv,
)
INTEGER_CONV: Final = _define(
    f"integer_conv(Tensor x, Tensor w, Tensor x_zero, Tensor w_zero, Tensor? bias, *, {_WINDOW})", _integer_conv
)
LINEAR_MATMUL: Final = _define(
    "linear_matmul(Tensor a, Tensor a_scale, Tensor a_zero, Tensor b, Tensor b_scale, Tensor b_zero, Tensor y_scale, "
    "Tensor y_zero, Tensor[] bounds, *, str name)",
    _linear_matmul,
)
INTEGER_MATMUL: Final = _define(
    "integer_matmul(Tensor a, Tensor b, Tensor a_zero, Tensor b_zero, Tensor? bias)", _integer_matmul
)
FROM_ACCUMULATOR: Final = _define("from_accumulator(Tensor sums, Tensor scale, *, int axis)", _of_scale)
RECTIFY: Final = _define("rectify(Tensor x, Tensor zero, *, str name)", _like_x)


def _without_defaults(window: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a convolution that say something."""
    ordinary = {"strides": 1, "pads": 0, "dilations": 1, "group": 1}
    return {
        name: value
        for name, value in window.items()
        if any(number != ordinary[name] for number in ([value] if isinstance(value, int) else value))
    }


def integer_translations(opset: int) -> dict[Any, Translation]:
    """The ONNX nodes of each op in a version of the standard operators."""
    import onnxscript

    op = onnxscript.values.Opset("", opset)

    def linear_conv(*operands: Any, name: str, **window: Any) -> Any:
        *given, bias, bounds = operands
        integers = op.QLinearConv(*given, *([] if bias is None else [bias]), **_without_defaults(window))
        return mark(op.Clip(integers, *bounds) if bounds else integers, name)

    def integer_conv(x: Any, w: Any, x_zero: Any, w_zero: Any, bias: Any, **window: Any) -> Any:
        sums = op.ConvInteger(x, w, x_zero, w_zero, **_without_defaults(window))
        return sums if bias is None else op.Add(sums, bias)

    def linear_matmul(*operands: Any, name: str) -> Any:
        *given, bounds = operands
        integers = op.QLinearMatMul(*given)
        return mark(op.Clip(integers, *bounds) if bounds else integers, name)

    def integer_matmul(a: Any, b: Any, a_zero: Any, b_zero: Any, bias: Any) -> Any:
        sums = op.MatMulInteger(a, b, a_zero, b_zero)
        return sums if bias is None else op.Add(sums, bias)

    def from_accumulator(sums: Any, scale: Any, axis: int) -> Any:
        return op.DequantizeLinear(sums, scale, axis=axis)

    def rectify(x: Any, zero: Any, name: str) -> Any:
        return mark(op.Clip(x, zero), name)

    return {
        LINEAR_CONV: linear_conv,
        INTEGER_CONV: integer_conv,
        LINEAR_MATMUL: linear_matmul,
        INTEGER_MATMUL: integer_matmul,
        FROM_ACCUMULATOR: from_accumulator,
        RECTIFY: rectify,
    }
