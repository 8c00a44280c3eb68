"""The executable specification of the dialect: run after capture and after each pass.

A program that breaks a rule is a defect of whatever built it; the error names the node, the rule and the actual value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import torch

from quant_core.errors import SpecError
from quant_core.export.program import Program
from quant_core.export.quantizer import Quantizer
from quant_core.ops import ROUNDING_MODES, integer_range
from quant_core.ops.minifloat import fake_float
from quant_core.ops.shapes import broadcasts_to

_OFF_GRID: Final = 0.01  # steps: a value is the number times the scale, rounded once more

Rule = Callable[[Quantizer], str | None]


def verify_spec(program: Program, *, after: str) -> Program:
    """Check every ``quant::`` op of a program, and return the program.

    Args:
        program: what to check.
        after: the name of the pass that built it, for the message.

    Raises:
        SpecError: for the first rule that is broken.
    """
    for quantizer in program.quantizers:
        for name, rule in RULES.items():
            broken = rule(quantizer)
            if broken is not None:
                raise SpecError(
                    f"node {quantizer.name!r} breaks the rule {name!r} of {quantizer.op}",
                    where=str(quantizer.where),
                    why=f"after {after}: {broken}",
                    fix="Check the quantizer's options and that its parameters are finite; if they are right, report this "
                    "as a defect of the pass.",
                )
    return program


def _scale_is_positive(quantizer: Quantizer) -> str | None:
    scale = quantizer.scale
    if scale is None or bool(torch.all(torch.isfinite(scale) & (scale > 0))):
        return None
    return f"a scale is positive and finite, got values from {scale.min().item():g} to {scale.max().item():g}"


def _scale_fits(quantizer: Quantizer) -> str | None:
    if quantizer.scale is None:
        return None
    shape = tuple(quantizer.scale.shape)
    if broadcasts_to(shape, quantizer.shape):
        return None
    sizes = ", ".join(map(str, quantizer.shape))
    return f"a scale broadcasts to its tensor, got {shape} for a tensor of shape ({sizes})"


def _bit_width_is_whole(quantizer: Quantizer) -> str | None:
    bits, least = quantizer.bit_width, 1 if quantizer.op == "quant::binary" else 2
    if bits is None or (bits % 1 == 0 and least <= bits <= 32):
        return None
    return f"a bit width is a whole number from {least} to 32, got {bits:g}"


def _zero_point_in_range(quantizer: Quantizer) -> str | None:
    zero_point, bits = quantizer.zero_point, quantizer.bit_width
    if zero_point is None or bits is None or quantizer.op == "quant::binary":
        return None
    low, high = integer_range(bits, signed=quantizer.signed, narrow_range=quantizer.narrow_range)
    if bool(torch.all((zero_point == zero_point.round()) & (zero_point >= low) & (zero_point <= high))):
        return None
    return (
        f"a zero-point is an integer from {low:g} to {high:g}, "
        f"got values from {zero_point.min().item():g} to {zero_point.max().item():g}"
    )


def _rounding_mode_is_known(quantizer: Quantizer) -> str | None:
    mode = quantizer.rounding_mode
    return None if mode in ROUNDING_MODES else f"a rounding mode is one of {', '.join(ROUNDING_MODES)}, got {mode!r}"


def _values_are_numbers(quantizer: Quantizer) -> str | None:
    values, scale, numbers = quantizer.values, quantizer.scale, quantizer.float_format
    if values is None or scale is None or numbers is None or values.numel() == 0:
        return None
    off = (values - fake_float(values, scale, numbers)).abs() / quantizer.step_at(values)
    worst = float(off.nan_to_num(0.0).max())
    return (
        None if worst < _OFF_GRID else f"values are numbers of {numbers} times the scale, got one {worst:g} steps off"
    )


def _integers_in_range(quantizer: Quantizer) -> str | None:
    integers, bits = quantizer.integers, quantizer.bit_width
    if integers is None or bits is None or integers.numel() == 0:
        return None
    low, high = (
        (-1, 1)
        if quantizer.op == "quant::binary"
        else integer_range(bits, signed=quantizer.signed, narrow_range=quantizer.narrow_range)
    )
    least, most = int(integers.min()), int(integers.max())
    return None if low <= least and most <= high else f"integers lie from {low:g} to {high:g}, got {least} to {most}"


RULES: Final[Mapping[str, Rule]] = {
    "scale is positive": _scale_is_positive,
    "scale fits the tensor": _scale_fits,
    "bit width is whole": _bit_width_is_whole,
    "zero-point is in range": _zero_point_in_range,
    "rounding mode is known": _rounding_mode_is_known,
    "integers are in range": _integers_in_range,
    "values are numbers of the format": _values_are_numbers,
}
"""Name → rule; a rule returns ``None``, or what is wrong with the actual value."""
