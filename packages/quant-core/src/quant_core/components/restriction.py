"""Which numbers a scale may be: how a threshold is restricted, and in which domain it is learned.

========================== ================================ =======================
restriction                threshold for a parameter ``p``  parameter starts from
========================== ================================ =======================
``FloatRestriction()``     ``|p|``                          ``t``
``LogFloatRestriction()``  ``2^p``                          ``log2 t``
``PowerOfTwoRestriction``  ``2^⌈p⌉``                        ``log2 t``
``IntRestriction``         ``⌈|p|⌉``                        ``t``
========================== ================================ =======================

Rounding is straight through. The thresholds of a power of two and of whole numbers are rounded up unless said otherwise, so that
nothing is clamped that was not clamped before.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from quant_core.ops import abs_binary_sign_grad, clamp_min_ste, magnitude_at_least, rounding_ste
from quant_core.ops.rounding import check_rounding_mode

SMALLEST_THRESHOLD: Final = 2.0**-94
"""A scale of a 32-bit integer with this threshold is still a normal float32 number."""


class Restriction(nn.Module):
    """Base of all restrictions; ``restriction(parameter)`` is a threshold.

    Laws: ``restriction.of_threshold(restriction.of_threshold(t))`` is ``restriction.of_threshold(t)``, and larger thresholds
    do not get smaller ones.

    Attributes:
        power_of_two: whether all thresholds are powers of two.
        smallest: the smallest threshold that there is.
    """

    power_of_two: bool = False
    smallest: float = SMALLEST_THRESHOLD

    def parameter_for(self, threshold: Tensor) -> Tensor:
        """The parameter from which learning starts, for a positive threshold; differentiable."""
        raise NotImplementedError(f"{type(self).__name__} must define parameter_for(threshold)")

    def of_threshold(self, threshold: Tensor) -> Tensor:
        """The restricted threshold, for a positive one; differentiable, straight through rounding."""
        restricted: Tensor = self(self.parameter_for(threshold))
        return restricted

    def at_least(self, parameter: Tensor, minimum: float) -> Tensor:
        """The threshold for a parameter, no smaller than ``minimum``; the gradient passes below it."""
        return clamp_min_ste(self(parameter), minimum)

    def forward(self, parameter: Tensor) -> Tensor:
        """The threshold for a parameter; same shape."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(parameter)")


class FloatRestriction(Restriction):
    """``|p|``: any positive number; ``∂out/∂p = ±1``, ``+1`` at 0.

    >>> FloatRestriction()(torch.tensor(-0.3))
    tensor(0.3000)
    """

    def parameter_for(self, threshold: Tensor) -> Tensor:
        """The threshold itself."""
        return threshold

    def of_threshold(self, threshold: Tensor) -> Tensor:
        """The threshold itself."""
        return threshold

    def at_least(self, parameter: Tensor, minimum: float) -> Tensor:
        """The magnitude, no smaller than ``minimum``."""
        return magnitude_at_least(parameter, minimum)

    def forward(self, parameter: Tensor) -> Tensor:
        """The magnitude."""
        return abs_binary_sign_grad(parameter)


class LogFloatRestriction(Restriction):
    """``2^p``: any positive number, learned as a logarithm, so that a step changes it by a factor; ``∂out/∂p = ln 2 · out``.

    >>> LogFloatRestriction()(torch.tensor(-1.0))
    tensor(0.5000)
    """

    def parameter_for(self, threshold: Tensor) -> Tensor:
        """Its logarithm to base 2."""
        return torch.log2(threshold)

    def forward(self, parameter: Tensor) -> Tensor:
        """The power of two."""
        return torch.pow(2.0, parameter)


class PowerOfTwoRestriction(Restriction):
    """``2^round(p)``; ``∂out/∂p = ln 2 · out``.

    A scale that is a power of two is a shift of bits. Jain et al., "Trained quantization thresholds for accurate and efficient
    fixed-point inference of deep neural networks", arXiv:1903.08066, section 3.2.

    Args:
        restrict_rounding_mode: how the exponent is rounded: ``"CEIL"``, ``"FLOOR"``, ``"ROUND"`` or another of
            :data:`~quant_core.ops.rounding.ROUNDING_MODES`.

    Raises:
        ConfigurationError: when the rounding mode is unknown.

    >>> PowerOfTwoRestriction()(torch.tensor([-0.9, 1.1])), PowerOfTwoRestriction("FLOOR")(torch.tensor([-0.9, 1.1]))
    (tensor([1., 4.]), tensor([0.5000, 2.0000]))
    """

    power_of_two = True

    def __init__(self, restrict_rounding_mode: str = "CEIL") -> None:
        super().__init__()
        self.restrict_rounding_mode = check_rounding_mode(restrict_rounding_mode)

    def parameter_for(self, threshold: Tensor) -> Tensor:
        """Its logarithm to base 2."""
        return torch.log2(threshold)

    def forward(self, parameter: Tensor) -> Tensor:
        """The power of two."""
        return torch.pow(2.0, rounding_ste(parameter, self.restrict_rounding_mode))

    def extra_repr(self) -> str:
        """The rounding mode."""
        return self.restrict_rounding_mode


class IntRestriction(Restriction):
    """``round(|p|)``; ``∂out/∂p = ±1``, ``+1`` at 0. Its smallest threshold is 1.

    Args:
        restrict_rounding_mode: how to round, as for :class:`PowerOfTwoRestriction`.

    Raises:
        ConfigurationError: when the rounding mode is unknown.

    >>> IntRestriction()(torch.tensor([2.2, 5.0])), IntRestriction("ROUND")(torch.tensor([2.2, 5.0]))
    (tensor([3., 5.]), tensor([2., 5.]))
    """

    smallest = 1.0

    def __init__(self, restrict_rounding_mode: str = "CEIL") -> None:
        super().__init__()
        self.restrict_rounding_mode = check_rounding_mode(restrict_rounding_mode)

    def parameter_for(self, threshold: Tensor) -> Tensor:
        """The threshold itself."""
        return threshold

    def forward(self, parameter: Tensor) -> Tensor:
        """The whole number; a scaling takes 1 in place of 0."""
        return rounding_ste(abs_binary_sign_grad(parameter), self.restrict_rounding_mode)

    def extra_repr(self) -> str:
        """The rounding mode."""
        return self.restrict_rounding_mode
