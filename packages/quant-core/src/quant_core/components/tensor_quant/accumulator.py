"""What every quantizer of an accumulator is: it goes from one grid to another."""

from __future__ import annotations

from torch import Tensor, nn

from quant_core.components.bit_width import BitWidth, RelativeBitWidth
from quant_core.components.tensor_quant.base import Quantized
from quant_core.errors import ConfigurationError


class AccumulatorQuant(nn.Module):
    """Base of the quantizers of accumulators: ``forward(x, scale, input_bit_width, signed)``.

    ``x`` lies on the grid of ``scale`` and ``input_bit_width`` with the zero-point 0. Returned are ``(value, scale, zero_point,
    bit_width)`` of the new grid, whose zero-point is 0 as well, and which is signed if the old one is.

    Attributes:
        bit_width_impl: how many bits remain.
        narrow_range: whether one level is left out.
    """

    bit_width_impl: nn.Module
    narrow_range: bool

    def forward(self, x: Tensor, scale: Tensor, input_bit_width: Tensor, signed: bool) -> Quantized:
        """``(value, scale, 0, bit_width)`` on the new grid."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(x, scale, input_bit_width, signed)")


def check_accumulator_bits(bit_width_impl: BitWidth | RelativeBitWidth) -> None:
    """What remains of an accumulator is an integer of at least 2 bits.

    Raises:
        ConfigurationError: when it has less.
    """
    bits = getattr(bit_width_impl, "constant", None)
    if bits is not None and bits < 2:
        raise ConfigurationError(
            f"bit_width={bits:g} is too small for an accumulator",
            why=f"the integers that remain need at least 2 bits, got {bits:g}",
            fix="Set bit_width to 2 or more.",
        )
