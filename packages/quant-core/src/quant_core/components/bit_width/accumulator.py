"""The bit widths of accumulators: how many bits are taken off, and what remains."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quant_core.components.bit_width.base import BitWidth, RelativeBitWidth
from quant_core.components.bit_width.restriction import BitWidthRestriction, WholeBits
from quant_core.errors import ConfigurationError
from quant_core.ops import clamp_ste

_NEVER_ZERO = 1e-6


class RemoveBitWidth(BitWidth):
    """``restrict(1 / (|c| + 10⁻⁶))`` bits to take off, with a learned ``c``.

    The parameter stands in the denominator, so that weight decay, which makes it smaller, takes more bits off instead of
    bringing them back.

    Args:
        bit_width_to_remove: the number of bits to start from, at least 0.
        remove_zero_bit_width: what stands for 0 at the start, because no parameter gives 0 exactly; it is rounded away.
        restrict_bit_width_impl: :class:`~quant_core.components.WholeBits` (the default) or ``FractionalBits``.

    Gradient: ``∂out/∂c = −sign(c) / (|c| + 10⁻⁶)²``, straight through rounding.

    Raises:
        ConfigurationError: when a number is out of range.

    >>> RemoveBitWidth(4)()
    tensor(4., grad_fn=<_StraightThroughBackward>)
    """

    def __init__(
        self,
        bit_width_to_remove: float,
        remove_zero_bit_width: float = 0.1,
        restrict_bit_width_impl: BitWidthRestriction | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= bit_width_to_remove <= 64:
            raise ConfigurationError(
                f"bit_width_to_remove={bit_width_to_remove!r} is out of range",
                why="an accumulator has up to 64 bits to take off",
                fix="Set it to 0 or a few bits.",
            )
        if not 0 < remove_zero_bit_width < 0.5:
            raise ConfigurationError(
                f"remove_zero_bit_width={remove_zero_bit_width!r} is out of range",
                why="it stands for 0 bits, so that it lies above 0 and is rounded to 0",
                fix="Leave it out.",
            )
        self.restrict_bit_width_impl = WholeBits() if restrict_bit_width_impl is None else restrict_bit_width_impl
        self.whole = self.restrict_bit_width_impl.whole
        start = 1 / (bit_width_to_remove if bit_width_to_remove else remove_zero_bit_width)
        self.bit_width_coeff = nn.Parameter(torch.tensor(start))

    def forward(self) -> Tensor:
        """The number of bits to take off, a 0-dim float tensor."""
        return self.restrict_bit_width_impl(1.0 / (self.bit_width_coeff.abs() + _NEVER_ZERO))


class MsbClampBitWidth(RelativeBitWidth):
    """``clamp(input_bit_width − removed, least, most)``: an accumulator without its most significant bits.

    Args:
        bit_width_to_remove_impl: how many bits to take off: :class:`RemoveBitWidth` to learn it, or ``ConstBitWidth``.
        min_overall_bit_width: the smallest result, at least 2.
        max_overall_bit_width: the largest result.

    Gradient: ``−1`` to the number of bits taken off, straight through the clamp, so that it can return.

    Raises:
        ConfigurationError: when the limits contradict each other.

    >>> from quant_core.components import ConstBitWidth
    >>> MsbClampBitWidth(ConstBitWidth(4), 2, 32)(torch.tensor(20.0))
    tensor(16.)
    """

    def __init__(
        self, bit_width_to_remove_impl: BitWidth, min_overall_bit_width: int, max_overall_bit_width: int
    ) -> None:
        super().__init__()
        if not 2 <= min_overall_bit_width <= max_overall_bit_width:
            raise ConfigurationError(
                f"min_overall_bit_width={min_overall_bit_width!r} and max_overall_bit_width={max_overall_bit_width!r} "
                "contradict each other",
                why="the smallest bit width is at least 2, and not above the largest",
                fix="Use limits such as 2 and 32.",
            )
        self.bit_width_to_remove_impl = bit_width_to_remove_impl
        self.min_overall_bit_width, self.max_overall_bit_width = min_overall_bit_width, max_overall_bit_width

    def forward(self, input_bit_width: Tensor) -> Tensor:
        """The bit width of the clamped accumulator."""
        remaining = input_bit_width - self.bit_width_to_remove_impl()
        return clamp_ste(remaining, float(self.min_overall_bit_width), float(self.max_overall_bit_width))

    def extra_repr(self) -> str:
        """The limits."""
        return f"from {self.min_overall_bit_width} to {self.max_overall_bit_width} bits"
