"""What an integer quantizer must be given."""

from __future__ import annotations

from torch import nn

from quant_core.components.bit_width import BitWidth
from quant_core.errors import ConfigurationError


def check_integer(bit_width_impl: BitWidth, signed: bool) -> None:
    """An integer quantizer says whether it is signed, and has at least 2 bits.

    Raises:
        ConfigurationError: when it does not, or has less.
    """
    if not isinstance(signed, bool):
        raise ConfigurationError(
            f"signed={signed!r} is neither True nor False",
            why="the sign decides the integer range",
            fix="Set signed to True or False.",
        )
    bits = bit_width_impl.constant
    if bits is not None and bits < 2:
        raise ConfigurationError(
            f"bit_width={bits:g} is too small for an integer quantizer",
            why=f"an integer quantizer needs at least 2 bits, got {bits:g}",
            fix="Use BinaryQuant for one bit, or set bit_width to 2 or more.",
        )


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
