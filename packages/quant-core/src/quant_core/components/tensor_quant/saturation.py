"""Dropping the high bits of an accumulator."""

from __future__ import annotations

import torch
from torch import Tensor

from quant_core.components.bit_width import BitWidth, RelativeBitWidth, bit_width_for
from quant_core.components.delay import QuantDelay
from quant_core.components.tensor_quant.accumulator import AccumulatorQuant, check_accumulator_bits
from quant_core.components.tensor_quant.base import Quantized
from quant_core.components.tensor_quant.integer_options import check_narrow_range
from quant_core.ops import quantize_composed


class ClampIntQuant(AccumulatorQuant):
    """``clamp(q, lo, hi) · scale`` for the integers ``q = x / scale`` of an accumulator: one that saturates with fewer bits.

    Args:
        bit_width_impl: how many bits remain, at least 2: a ``BitWidth``, or one relative to the bits that come in, such as
            :class:`~quant_core.components.MsbClampBitWidth`.
        narrow_range: leave out one level.
        quant_delay_steps: how many training steps to pass before values are clamped.

    Gradient: ``g`` to ``x`` in range; where a value is clamped, ``g · scale`` to the end of the range, and so to a bit width that
    learns.

    Raises:
        ConfigurationError: when an option is out of range.

    >>> from quant_core.components import ConstBitWidth
    >>> q = torch.tensor([100.0, -3.0, 7.0])
    >>> ClampIntQuant(ConstBitWidth(4))(q, torch.tensor(1.0), torch.tensor(8.0), signed=True)
    (tensor([ 7., -3.,  7.]), tensor(1.), tensor(0.), tensor(4.))
    """

    def __init__(
        self, bit_width_impl: BitWidth | RelativeBitWidth, narrow_range: bool = False, quant_delay_steps: int = 0
    ) -> None:
        super().__init__()
        check_accumulator_bits(bit_width_impl)
        check_narrow_range(narrow_range)
        self.bit_width_impl = bit_width_impl
        self.narrow_range = narrow_range
        self.delay = QuantDelay(quant_delay_steps)

    def forward(self, x: Tensor, scale: Tensor, input_bit_width: Tensor, signed: bool) -> Quantized:
        """``(value, scale, 0, bit_width)`` on the old grid with fewer bits."""
        bit_width = bit_width_for(self.bit_width_impl, input_bit_width)
        value = quantize_composed(x, scale, 0, bit_width, signed=signed, narrow_range=self.narrow_range)
        value, bit_width = self.delay.choose((x, input_bit_width), (value, bit_width))
        return value, scale, torch.zeros_like(scale), bit_width

    def extra_repr(self) -> str:
        """The options."""
        return f"narrow_range={self.narrow_range}"
