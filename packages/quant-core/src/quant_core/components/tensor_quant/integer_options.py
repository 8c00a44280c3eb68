"""What an integer quantizer must be given."""

from __future__ import annotations

from torch import nn

from quant_core.components.bit_width import BitWidth
from quant_core.errors import ConfigurationError
from quant_core.ops import ClampGradient


def check_integer(bit_width_impl: BitWidth, signed: bool, narrow_range: bool) -> None:
    """An integer quantizer says whether it is signed and leaves out one level, and has at least 2 bits.

    Raises:
        ConfigurationError: when it does not, or has less.
    """
    if not isinstance(signed, bool):
        raise ConfigurationError(
            f"signed={signed!r} is neither True nor False",
            why="the sign decides the integer range",
            fix="Set signed to True or False.",
        )
    check_narrow_range(narrow_range)
    bits = bit_width_impl.constant
    if bits is not None and bits < 2:
        raise ConfigurationError(
            f"bit_width={bits:g} is too small for an integer quantizer",
            why=f"an integer quantizer needs at least 2 bits, got {bits:g}",
            fix="Use BinaryQuant for one bit, or set bit_width to 2 or more.",
        )


def check_narrow_range(narrow_range: bool) -> None:
    """Whether one level is left out is a yes or no.

    Raises:
        ConfigurationError: when it is something else, which would count as yes or no by what it holds.
    """
    if not isinstance(narrow_range, bool):
        raise ConfigurationError(
            f"narrow_range={narrow_range!r} is neither True nor False",
            why="it leaves out one level of the integer range, or does not",
            fix="Set narrow_range to True or False.",
        )


def check_clamp_gradient(clamp_gradient: ClampGradient) -> ClampGradient:
    """Return what becomes of the gradient of a clamped value, when it is one of the two.

    Raises:
        ConfigurationError: when it is not.

    >>> check_clamp_gradient("pass")
    'pass'
    """
    if clamp_gradient not in ("masked", "pass"):
        raise ConfigurationError(
            f"clamp_gradient={clamp_gradient!r} is not known",
            why="where a value is clamped its gradient stops, 'masked', or passes, 'pass'",
            fix="Set clamp_gradient to 'masked' or 'pass'.",
        )
    return clamp_gradient


def check_one_rounding(rounding_mode: str, rounding_impl: nn.Module | None) -> None:
    """A rounding module takes the place of the mode, so that a mode beside it would be ignored.

    Raises:
        ConfigurationError: when both are set.
    """
    if rounding_impl is not None and rounding_mode != "ROUND":
        raise ConfigurationError(
            f"rounding_mode={rounding_mode!r} has no effect",
            why=f"rounding_impl={type(rounding_impl).__name__} rounds in its place",
            fix="Leave one of them out.",
        )
