"""The numerics: rounding, straight-through estimators, fake quantization and the ``quant::`` dialect."""

from quant_core.ops import dialect as dialect
from quant_core.ops.binary import quantize_binary, quantize_ternary
from quant_core.ops.composed import quantize_composed
from quant_core.ops.decoupled import quantize_decoupled
from quant_core.ops.float_format import FloatFormat
from quant_core.ops.integer import ClampGradient, integer_range, quantize_int
from quant_core.ops.minifloat import quantize_float
from quant_core.ops.rounding import ROUNDING_MODES, RoundingMode, round_to_integer
from quant_core.ops.straight_through import (
    abs_binary_sign_grad,
    binary_sign,
    binary_sign_ste,
    ceil_ste,
    clamp_min_ste,
    clamp_ste,
    floor_ste,
    magnitude_at_least,
    round_half_up_ste,
    round_ste,
    round_to_zero_ste,
    rounding_ste,
    straight_through,
    tensor_clamp,
    ternary_sign_ste,
)
from quant_core.ops.truncation import quantize_trunc

__all__ = [
    "ROUNDING_MODES",
    "ClampGradient",
    "FloatFormat",
    "RoundingMode",
    "abs_binary_sign_grad",
    "binary_sign",
    "binary_sign_ste",
    "ceil_ste",
    "clamp_min_ste",
    "clamp_ste",
    "floor_ste",
    "integer_range",
    "magnitude_at_least",
    "quantize_binary",
    "quantize_composed",
    "quantize_decoupled",
    "quantize_float",
    "quantize_int",
    "quantize_ternary",
    "quantize_trunc",
    "round_half_up_ste",
    "round_ste",
    "round_to_integer",
    "round_to_zero_ste",
    "rounding_ste",
    "straight_through",
    "tensor_clamp",
    "ternary_sign_ste",
]
