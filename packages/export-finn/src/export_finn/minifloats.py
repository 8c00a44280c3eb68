"""The operands and attributes of ``FloatQuant``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from quant_core.export import Quantizer
from quant_core.ops import FloatFormat


def format_parts(float_format: FloatFormat) -> list[tuple[str, Tensor]]:
    """What a file holds of a format, in the order of the operands: by name, 0-dim float32.

    >>> [(name, float(number)) for name, number in format_parts(FloatFormat.of_bits(4, 3))][:2]
    [('exponent_bit_width', 4.0), ('mantissa_bit_width', 3.0)]
    """
    names = ("exponent_bit_width", "mantissa_bit_width", "exponent_bias", "max_value")
    return [(name, torch.tensor(float(getattr(float_format, name)))) for name in names]


def format_flags(quantizer: Quantizer, rounding_mode: str, name: str) -> dict[str, Any]:
    """The attributes of the node of a quantizer to minifloats."""
    numbers = quantizer.float_format
    assert numbers is not None
    codes = {key: getattr(numbers, key) for key in ("has_inf", "has_nan", "has_subnormal", "saturating")}
    return {**codes, "rounding_mode": rounding_mode, "name": name}
