"""From the threshold of a quantizer to its scale: which integer the threshold falls on."""

from __future__ import annotations

from torch import Tensor, nn

from quant_core.components.int_scaling import IntScaling, PowerOfTwoIntScaling
from quant_core.errors import ConfigurationError


def scale_of(threshold: Tensor, integers: tuple[Tensor | float, Tensor | float], *, signed: bool) -> Tensor:
    """``threshold / m``, where ``m`` is the largest magnitude of the integer range ``lo … hi``: ``−lo`` if signed, else ``hi``.

    >>> import torch
    >>> scale_of(torch.tensor(1.0), (-8.0, 7.0), signed=True)
    tensor(0.1250)
    """
    low, high = integers
    return threshold / (-low if signed else high)


def int_scaling_for(
    given: nn.Module | None, restriction: nn.Module | None, signed: bool, narrow_range: bool
) -> nn.Module:
    """What the threshold is divided by: a power of two where the scale is to be one.

    Args:
        given: what the user chose, if anything.
        restriction: which numbers the threshold may be.
        signed: whether the integers can be negative.
        narrow_range: leave out one level.

    Raises:
        ConfigurationError: when the scale could not be the power of two that its restriction promises.

    >>> from quant_core.components.restriction import PowerOfTwoRestriction
    >>> int_scaling_for(None, PowerOfTwoRestriction(), True, True)(8.0), int_scaling_for(None, None, True, True)(8.0)
    (128.0, 127.0)
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
