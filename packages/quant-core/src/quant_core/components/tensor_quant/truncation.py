"""Dropping the low bits of an accumulator."""

from __future__ import annotations

import torch
from torch import Tensor

from quant_core.components.bit_width import BitWidth, RelativeBitWidth, bit_width_for
from quant_core.components.delay import QuantDelay
from quant_core.components.tensor_quant.accumulator import AccumulatorQuant, check_accumulator_bits
from quant_core.components.tensor_quant.base import Quantized
from quant_core.components.tensor_quant.integer_options import check_narrow_range
from quant_core.components.trunc_scaling import TruncMsbScaling, TruncScaling
from quant_core.ops import quantize_trunc
from quant_core.ops.rounding import check_rounding_mode


class TruncIntQuant(AccumulatorQuant):
    """``clamp(mode(q / 2^k), lo, hi) · scale · 2^k`` for the integers ``q = x / scale`` of an accumulator.

    What a shift to the right does in hardware. Formula and gradient are those of :func:`quant_core.ops.quantize_trunc`.

    Args:
        bit_width_impl: how many bits remain, at least 2: a ``BitWidth``, or one relative to the bits that come in.
        trunc_scaling_impl: how many bits ``k`` are dropped: ``TruncMsbScaling`` (the default) or ``TruncStatsScaling``.
        rounding_mode: how to round; ``FLOOR`` is a plain shift.
        narrow_range: leave out one level.
        quant_delay_steps: how many training steps to pass, on the old grid, before bits are dropped.

    Raises:
        ConfigurationError: when an option is out of range.

    >>> from quant_core.components import ConstBitWidth
    >>> q = torch.tensor([100.0, -3.0, 7.0])
    >>> TruncIntQuant(ConstBitWidth(4))(q, torch.tensor(1.0), torch.tensor(8.0), signed=True)
    (tensor([ 96., -16.,   0.]), tensor(16.), tensor(0.), tensor(4.))
    """

    def __init__(
        self,
        bit_width_impl: BitWidth | RelativeBitWidth,
        trunc_scaling_impl: TruncScaling | None = None,
        rounding_mode: str = "FLOOR",
        narrow_range: bool = False,
        quant_delay_steps: int = 0,
    ) -> None:
        super().__init__()
        check_accumulator_bits(bit_width_impl)
        check_narrow_range(narrow_range)
        self.bit_width_impl = bit_width_impl
        self.trunc_scaling_impl = TruncMsbScaling() if trunc_scaling_impl is None else trunc_scaling_impl
        self.rounding_mode = check_rounding_mode(rounding_mode)
        self.narrow_range = narrow_range
        self.delay = QuantDelay(quant_delay_steps)

    def forward(self, x: Tensor, scale: Tensor, input_bit_width: Tensor, signed: bool) -> Quantized:
        """``(value, scale, 0, bit_width)`` on the new grid."""
        bit_width = bit_width_for(self.bit_width_impl, input_bit_width)
        dropped = self.trunc_scaling_impl(x, scale, input_bit_width, bit_width, signed)
        output_scale = scale * torch.exp2(dropped)
        zero_point = torch.zeros_like(scale)
        kinds = {"signed": signed, "narrow_range": self.narrow_range}
        value = quantize_trunc(x, scale, zero_point, output_scale, bit_width, rounding_mode=self.rounding_mode, **kinds)
        value, output_scale, bit_width = self.delay.choose(
            (x, scale, input_bit_width), (value, output_scale, bit_width)
        )
        return value, output_scale, zero_point, bit_width

    def extra_repr(self) -> str:
        """The options."""
        return f"rounding_mode={self.rounding_mode!r}, narrow_range={self.narrow_range}"
