"""A bit width that is learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quant_core.components.bit_width.base import BitWidth
from quant_core.components.bit_width.restriction import BitWidthRestriction, WholeBits
from quant_core.errors import ConfigurationError
from quant_core.ops import abs_binary_sign_grad, clamp_ste

_MOST = 32


class ParameterBitWidth(BitWidth):
    """``restrict(base + |offset|)`` with a learned ``offset``; ``base`` stands for the smallest number of bits.

    The loss reaches it through the scale and through the limits of the integer range, so that quantizers of weights stop the
    gradient of a clamped weight (``clamp_gradient="masked"``) when their bit width learns. Alone the loss only asks for more
    bits: add a cost to it, such as ``cost · layer.weight_quant.bit_width()``.

    Give the same instance to several quantizers to share it: ``bits = ParameterBitWidth(4)``, ``weight_bit_width_impl=bits``.

    Args:
        bit_width: the number of bits to start from.
        min_bit_width: the smallest number of bits, at least 2.
        max_bit_width: the largest number of bits, at most 32; the gradient passes above it, so that the offset can return.
        restrict_bit_width_impl: which numbers it may take: :class:`WholeBits` (the default), :class:`PowerOfTwoBits` or
            :class:`FractionalBits`.

    Gradient: ``∂out/∂offset = ±1``, ``+1`` at 0, times that of the restriction, which is straight through rounding.

    Raises:
        ConfigurationError: when the numbers contradict each other, or the restriction does not allow them.

    >>> ParameterBitWidth(4)()
    tensor(4., grad_fn=<_StraightThroughBackward>)
    """

    bit_width_offset: nn.Parameter

    def __init__(
        self,
        bit_width: float,
        min_bit_width: float = 2,
        max_bit_width: float = _MOST,
        restrict_bit_width_impl: BitWidthRestriction | None = None,
    ) -> None:
        super().__init__()
        self.restrict_bit_width_impl = WholeBits() if restrict_bit_width_impl is None else restrict_bit_width_impl
        self.whole = self.restrict_bit_width_impl.whole
        self._check(bit_width, min_bit_width, max_bit_width)
        self.min_bit_width, self.max_bit_width = float(min_bit_width), float(max_bit_width)
        self.base = self.restrict_bit_width_impl.parameter_for(min_bit_width)
        self._top = self.restrict_bit_width_impl.parameter_for(max_bit_width)
        start = self.restrict_bit_width_impl.parameter_for(bit_width) - self.base
        self.bit_width_offset = nn.Parameter(torch.tensor(start))

    def forward(self) -> Tensor:
        """The bit width, a 0-dim float tensor.

        Raises:
            ConfigurationError: when it is captured for an export, and is not a whole number.
        """
        bits = clamp_ste(abs_binary_sign_grad(self.bit_width_offset) + self.base, self.base, self._top)
        bits = self.restrict_bit_width_impl(bits)
        if torch.compiler.is_exporting() and not self.whole:
            raise ConfigurationError(
                "a fractional bit width cannot be exported",
                why=f"{type(self.restrict_bit_width_impl).__name__} does not round it; integers have a whole number of bits",
                fix="Train on with restrict_bit_width_impl=WholeBits, loading this checkpoint, and export that.",
            )
        return bits

    def extra_repr(self) -> str:
        """The limits."""
        return f"from {self.min_bit_width:g} to {self.max_bit_width:g} bits"

    def _check(self, bit_width: float, least: float, most: float) -> None:
        numbers = {"bit_width": bit_width, "min_bit_width": least, "max_bit_width": most}
        for name, number in numbers.items():
            if isinstance(number, bool) or not isinstance(number, int | float) or not 2 <= number <= _MOST:
                raise ConfigurationError(
                    f"{name}={number!r} is out of range",
                    why=f"a learned bit width stays from 2 to {_MOST}, because the scale of one bit would be infinite",
                    fix=f"Set {name} to a number such as 4 or 8.",
                )
            if not self.restrict_bit_width_impl.allows(number) and name != "max_bit_width":
                raise ConfigurationError(
                    f"{name}={number!r} is not a bit width that {type(self.restrict_bit_width_impl).__name__} allows",
                    why="learning starts from a number that the restriction can give",
                    fix="Choose another number, or restrict_bit_width_impl=FractionalBits to learn without rounding.",
                )
        if not least <= bit_width <= most:
            raise ConfigurationError(
                f"bit_width={bit_width!r} does not lie from min_bit_width={least!r} to max_bit_width={most!r}",
                why="learning starts inside of the limits",
                fix="Set bit_width between them, or move the limits.",
            )
