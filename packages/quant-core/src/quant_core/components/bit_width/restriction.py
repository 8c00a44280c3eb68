"""Which numbers a learned bit width may take: how its parameter stands for a number of bits.

====================== ==================================== ===================
restriction            number of bits for a parameter ``p``  can be exported
====================== ==================================== ===================
``WholeBits()``        ``round(p)``                          yes
``PowerOfTwoBits()``   ``2^round(p)``                        yes
``FractionalBits()``   ``p``                                 no
====================== ==================================== ===================

Gradients go straight through rounding.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from quant_core.ops import round_ste


class BitWidthRestriction(Protocol):
    """What :class:`~quant_core.components.ParameterBitWidth` takes as ``restrict_bit_width_impl``.

    Law: ``restriction(torch.tensor(restriction.parameter_for(bits))) == bits`` for each number of bits that it allows.
    """

    whole: bool

    def allows(self, bits: float) -> bool:
        """Whether it can give this number of bits."""
        ...

    def parameter_for(self, bits: float) -> float:
        """The parameter that stands for a number of bits."""
        ...

    def __call__(self, parameter: Tensor) -> Tensor:
        """The number of bits that a parameter stands for; same shape."""
        ...


class WholeBits(nn.Module):
    """``round(p)``: 2, 3, 4, …; ``∂out/∂p = 1``.

    >>> WholeBits()(torch.tensor(4.4))
    tensor(4.)
    """

    whole = True

    def allows(self, bits: float) -> bool:
        """Whether it is a whole number."""
        return bits % 1 == 0

    def parameter_for(self, bits: float) -> float:
        """The number itself."""
        return float(bits)

    def forward(self, parameter: Tensor) -> Tensor:
        """The nearest whole number, ties to even."""
        return round_ste(parameter)


class FractionalBits(nn.Module):
    """``p``: no rounding, to learn a float bit width first and train again with a restriction afterwards.

    >>> FractionalBits()(torch.tensor(4.5))
    tensor(4.5000)
    """

    whole = False

    def allows(self, bits: float) -> bool:
        """Always."""
        return True

    def parameter_for(self, bits: float) -> float:
        """The number itself."""
        return float(bits)

    def forward(self, parameter: Tensor) -> Tensor:
        """The parameter itself."""
        return parameter


class PowerOfTwoBits(nn.Module):
    """``2^round(p)``: 2, 4, 8, 16; ``∂out/∂p = ln 2 · out``.

    >>> PowerOfTwoBits()(torch.tensor(1.8))
    tensor(4.)
    """

    whole = True

    def allows(self, bits: float) -> bool:
        """Whether it is a power of two."""
        return math.frexp(bits)[0] == 0.5

    def parameter_for(self, bits: float) -> float:
        """Its logarithm to base 2."""
        return math.log2(bits)

    def forward(self, parameter: Tensor) -> Tensor:
        """The power of two."""
        return torch.exp2(round_ste(parameter))
