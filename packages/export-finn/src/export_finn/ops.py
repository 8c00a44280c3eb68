"""The operators of ``qonnx.custom_op.general``: torch ops that a program is rewritten into, and the ONNX node that each becomes.

Operands have the shapes that the clients need: bit widths are 0-dim float tensors, everything is float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor

from export_finn.lstm_step import SLOTS
from quant_core.export.onnx import Translation, custom_op, mark

DOMAIN: Final = "qonnx.custom_op.general"
VERSION: Final = 2
"""The version of the domain that files import: it decides how a reader takes the operands of ``Trunc``."""

_library = torch.library.Library("qonnx", "DEF")


def _define(schema: str, fake: Callable[..., Any], results: str = "Tensor") -> Any:
    name = schema.partition("(")[0]
    _library.define(f"{schema} -> {results}", tags=torch.Tag.pt2_compliant_tag)
    torch.library.register_fake(f"qonnx::{name}", fake, lib=_library)
    return getattr(torch.ops.qonnx, name).default


def _like_x(x: Tensor, *_: Tensor, **__: Any) -> Tensor:
    return torch.empty_like(x)


def _pooled(x: Tensor, *, kernel: int, stride: int, **_: Any) -> Tensor:
    height, width = ((size - kernel) // stride + 1 for size in x.shape[-2:])
    return x.new_empty((*x.shape[:-2], height, width))


def _states(operands: list[Tensor], **_: Any) -> tuple[Tensor, Tensor, Tensor]:
    x, hidden, cell = operands[:3]
    return x.new_empty((x.shape[0], *hidden.shape)), torch.empty_like(hidden), torch.empty_like(cell)


QUANT: Final = _define(
    "quant(Tensor x, Tensor scale, Tensor zero_point, Tensor bit_width, *, bool signed, bool narrow, str rounding_mode, "
    "str name)",
    _like_x,
)
FLOAT: Final = _define(
    "float(Tensor x, Tensor scale, Tensor exponent_bits, Tensor mantissa_bits, Tensor exponent_bias, Tensor max_value, *, "
    "bool has_inf, bool has_nan, bool has_subnormal, bool saturating, str rounding_mode, str name)",
    _like_x,
)
BIPOLAR: Final = _define("bipolar(Tensor x, Tensor scale, *, str name)", _like_x)
TRUNC: Final = _define(
    "trunc(Tensor x, Tensor scale, Tensor zero_point, Tensor bit_width, Tensor output_scale, Tensor output_bit_width, *, "
    "bool signed, bool narrow, str rounding_mode, str name)",
    _like_x,
)
MULTI_THRESHOLD: Final = _define(
    "multi_threshold(Tensor x, Tensor thresholds, *, float scale, float bias, str dtype, str layout, str name)", _like_x
)
AVERAGE_POOL: Final = _define(
    "average_pool(Tensor x, *, int kernel, int stride, int input_bits, int output_bits, bool signed, str name)", _pooled
)
LSTM_CELL: Final = _define(
    "lstm_cell(Tensor[] operands, *, bool reverse, bool coupled, int[] narrow, int[] signed, str rounding)",
    _states,
    "(Tensor, Tensor, Tensor)",
)
"""``narrow``, ``signed`` and ``rounding``, which is joined by commas, are in the order of :data:`export_finn.lstm_step.SLOTS`."""

_LSTM_OPERANDS: Final = (
    *("x", "h0", "c0"),
    *(f"{kind}{gate}" for kind in ("W_i", "W_h", "b_") for gate in "ifco"),
    *(f"{slot}_{part}" for slot in SLOTS for part in ("scale", "zero_point", "bit_width")),
)
_NARROW: Final = {slot: f"{slot}_narrow{'_range' if slot == 'output_sigmoid' else ''}" for slot in SLOTS}
"""The attribute that tells it, one of which is spelt unlike the others wherever the operator is written."""


def translations() -> dict[Any, Translation]:
    """The ONNX node of each op."""

    def op(name: str, *inputs: str, **attributes: type) -> Callable[..., Any]:
        return custom_op(name, domain=DOMAIN, version=VERSION, inputs=inputs, attributes=attributes)

    integers = op("Quant", "X", "scale", "zeropt", "bitwidth", signed=int, narrow=int, rounding_mode=str)
    bipolar = op("BipolarQuant", "X", "scale")
    words = ("X", "scale", "exponent_bitwidth", "mantissa_bitwidth", "exponent_bias", "max_val")
    flags = {"has_inf": int, "has_nan": int, "has_subnormal": int, "saturation": int}
    minifloat = op("FloatQuant", *words, **flags, rounding_mode=str)
    operands = ("X", "scale", "zeropt", "in_bitwidth", "out_scale", "out_bitwidth")
    trunc = op("Trunc", *operands, signed=int, narrow=int, rounding_mode=str)
    levels = op("MultiThreshold", "X", "thresholds", out_scale=float, out_bias=float, out_dtype=str, data_layout=str)
    sizes = {"kernel": int, "stride": int, "ibits": int, "obits": int, "signed": int}
    pool = op("QuantAvgPool2d", "X", **sizes, data_layout=str)

    flags_of_cell = {_NARROW[slot]: int for slot in SLOTS} | {f"{slot}_signed": int for slot in SLOTS}
    kinds_of_cell: dict[str, type] = {"batch_first": int, "reverse_input": int, "cifg": int, **flags_of_cell}
    kinds_of_cell |= {f"{slot}_rounding_mode": str for slot in SLOTS}
    cell = custom_op(
        "QuantLSTMCell",
        domain=DOMAIN,
        version=VERSION,
        inputs=_LSTM_OPERANDS,
        outputs=("outputs", "hidden", "cell"),
        attributes=kinds_of_cell,
    )

    def to_quant(
        x: Any, scale: Any, zero: Any, bits: Any, signed: bool, narrow: bool, rounding_mode: str, name: str
    ) -> Any:
        kinds = {"signed": int(signed), "narrow": int(narrow), "rounding_mode": rounding_mode}
        return mark(integers(x, scale, zero, bits, **kinds), name)

    def to_float(
        x: Any,
        scale: Any,
        exponent_bits: Any,
        mantissa_bits: Any,
        exponent_bias: Any,
        max_value: Any,
        has_inf: bool,
        has_nan: bool,
        has_subnormal: bool,
        saturating: bool,
        rounding_mode: str,
        name: str,
    ) -> Any:
        codes = {"has_inf": int(has_inf), "has_nan": int(has_nan), "has_subnormal": int(has_subnormal)}
        numbers = (exponent_bits, mantissa_bits, exponent_bias, max_value)
        found = minifloat(x, scale, *numbers, **codes, saturation=int(saturating), rounding_mode=rounding_mode)
        return mark(found, name)

    def to_bipolar(x: Any, scale: Any, name: str) -> Any:
        return mark(bipolar(x, scale), name)

    def to_trunc(
        x: Any,
        scale: Any,
        zero: Any,
        bits: Any,
        out_scale: Any,
        out_bits: Any,
        signed: bool,
        narrow: bool,
        rounding_mode: str,
        name: str,
    ) -> Any:
        kinds = {"signed": int(signed), "narrow": int(narrow), "rounding_mode": rounding_mode}
        return mark(trunc(x, scale, zero, bits, out_scale, out_bits, **kinds), name)

    def to_levels(x: Any, thresholds: Any, scale: float, bias: float, dtype: str, layout: str, name: str) -> Any:
        kinds = {"out_scale": scale, "out_bias": bias, "out_dtype": dtype, "data_layout": layout}
        return mark(levels(x, thresholds, **kinds), name)

    def to_pool(x: Any, kernel: int, stride: int, input_bits: int, output_bits: int, signed: bool, name: str) -> Any:
        bits = {"ibits": input_bits, "obits": output_bits, "signed": int(signed)}
        return mark(pool(x, kernel=kernel, stride=stride, **bits, data_layout="NCHW"), name)

    def to_cell(operands: Any, reverse: bool, coupled: bool, narrow: Any, signed: Any, rounding: str) -> Any:
        told: dict[str, Any] = {"batch_first": 0, "reverse_input": int(reverse), "cifg": int(coupled)}
        for slot, is_narrow, is_signed, mode in zip(SLOTS, narrow, signed, rounding.split(","), strict=True):
            told |= {_NARROW[slot]: is_narrow, f"{slot}_signed": is_signed, f"{slot}_rounding_mode": mode}
        return cell(*operands, **told)

    return {
        LSTM_CELL: to_cell,
        QUANT: to_quant,
        FLOAT: to_float,
        BIPOLAR: to_bipolar,
        TRUNC: to_trunc,
        MULTI_THRESHOLD: to_levels,
        AVERAGE_POOL: to_pool,
    }
