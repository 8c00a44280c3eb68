"""Which integer the threshold of a quantizer falls on: the scale is the threshold divided by it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from quant_core.components.restriction import Restriction
from quant_core.errors import ConfigurationError
from quant_core.ops import integer_range


class IntScaling(nn.Module):
    """The largest magnitude of the integer range: the threshold is the last number that is not clamped.

    ``2^(b−1)`` signed, ``2^(b−1) − 1`` signed and narrow, ``2^b − 1`` unsigned, one less unsigned and narrow.

    Args:
        signed: whether the integers can be negative.
        narrow_range: leave out one level.

    Gradient: that of the formula, to a bit width that learns.

    >>> IntScaling(signed=True)(8.0), IntScaling(signed=True, narrow_range=True)(8.0), IntScaling(signed=False)(8.0)
    (128.0, 127.0, 255.0)
    """

    power_of_two = False

    def __init__(self, signed: bool, narrow_range: bool = False) -> None:
        super().__init__()
        self.signed = signed
        self.narrow_range = narrow_range

    def forward(self, bit_width: Tensor | float) -> Any:
        """The integer: a number for a number, a 0-dim tensor for a tensor."""
        low, high = integer_range(bit_width, signed=self.signed, narrow_range=self.narrow_range)
        return -low if self.signed else high

    def extra_repr(self) -> str:
        """The range."""
        return f"signed={self.signed}, narrow_range={self.narrow_range}"


class PowerOfTwoIntScaling(nn.Module):
    """``2^(b−1)`` signed, ``2^b`` unsigned: a threshold that is a power of two gives a scale that is one.

    The threshold itself may be clamped to the last level below it, by one step.

    Args:
        signed: whether the integers can be negative.

    Gradient: that of the formula, to a bit width that learns.

    >>> PowerOfTwoIntScaling(signed=True)(8.0), PowerOfTwoIntScaling(signed=False)(8.0)
    (128.0, 256.0)
    """

    power_of_two = True

    def __init__(self, signed: bool) -> None:
        super().__init__()
        self.signed = signed

    def forward(self, bit_width: Tensor | float) -> Any:
        """The power of two: a number for a number, a 0-dim tensor for a tensor."""
        return 2.0 ** (bit_width - 1 if self.signed else bit_width)

    def extra_repr(self) -> str:
        """The range."""
        return f"signed={self.signed}"


def int_scaling_for(
    given: nn.Module | None, restriction: Restriction | None, signed: bool, narrow_range: bool
) -> nn.Module:
    """What thresholds of a restriction are divided by: a power of two where the scale is to be one.

    Args:
        given: what a user chose, ``None`` for the one that fits.
        restriction: which numbers the thresholds may be.
        signed: whether the integers can be negative.
        narrow_range: leave out one level.

    Raises:
        ConfigurationError: when the one that was chosen makes no powers of two of powers of two.

    >>> int_scaling_for(None, None, signed=True, narrow_range=False)
    IntScaling(signed=True, narrow_range=False)
    """
    powers = bool(getattr(restriction, "power_of_two", False))
    if given is None:
        return PowerOfTwoIntScaling(signed) if powers else IntScaling(signed, narrow_range)
    if powers and not getattr(given, "power_of_two", False):
        raise ConfigurationError(
            f"{type(restriction).__name__} has no effect together with int_scaling_impl={type(given).__name__}",
            why="a power of two divided by the largest integer, such as 127, is no power of two",
            fix="Leave int_scaling_impl out, or restrict_scaling_impl.",
        )
    return given
