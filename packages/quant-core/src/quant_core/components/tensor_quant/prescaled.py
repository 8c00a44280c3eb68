"""Uniform quantization at a scale that is given from outside."""

from __future__ import annotations

from torch import Tensor

from quant_core.components.bit_width import BitWidth
from quant_core.components.delay import QuantDelay
from quant_core.components.fit import check_fits
from quant_core.components.tensor_quant.base import Quantized, TensorQuant
from quant_core.components.tensor_quant.integer_options import check_clamp_gradient, check_integer
from quant_core.components.zero_point import ZeroZeroPoint
from quant_core.ops import ClampGradient, quantize_int
from quant_core.ops.rounding import check_rounding_mode


class PrescaledIntQuant(TensorQuant):
    """Uniform quantization at a scale that is given from outside: the bias of a layer.

    ``forward(x, scale)`` computes ``clamp(round(x/scale), lo, hi) · scale``; gradient as :func:`quant_core.ops.quantize_int`.

    Args:
        bit_width_impl: where the bit width comes from; at least 2.
        signed: whether the integers can be negative.
        narrow_range: leave out one level.
        rounding_mode: how to round.
        clamp_gradient: whether the gradient stops or passes where a value is clamped.
        quant_delay_steps: how many training steps to pass before quantization starts.

    Raises:
        ConfigurationError: when the options contradict each other.

    >>> import torch
    >>> from quant_core.components import ConstBitWidth
    >>> PrescaledIntQuant(ConstBitWidth(8), signed=True)(torch.tensor([0.26]), torch.tensor(0.1))[0]
    tensor([0.3000])
    """

    def __init__(
        self,
        bit_width_impl: BitWidth,
        signed: bool = True,
        narrow_range: bool = False,
        rounding_mode: str = "ROUND",
        clamp_gradient: ClampGradient = "masked",
        quant_delay_steps: int = 0,
    ) -> None:
        super().__init__()
        check_integer(bit_width_impl, signed, narrow_range)
        self.bit_width_impl = bit_width_impl
        self.zero_point_impl = ZeroZeroPoint()
        self.symmetric = self.zero_on_grid = True
        self.signed = signed
        self.narrow_range = narrow_range
        self.rounding_mode = check_rounding_mode(rounding_mode)
        self.clamp_gradient = check_clamp_gradient(clamp_gradient)
        self.delay = QuantDelay(quant_delay_steps)

    def forward(self, x: Tensor, scale: Tensor) -> Quantized:
        """``(value, scale, zero_point, bit_width)`` of ``x`` on the grid of ``scale``, which broadcasts to it."""
        check_fits(x, scale)
        bit_width = self.bit_width_impl()
        value = quantize_int(
            x,
            scale,
            0,
            bit_width if self.bit_width_impl.constant is None else self.bit_width_impl.constant,
            signed=self.signed,
            narrow_range=self.narrow_range,
            rounding_mode=self.rounding_mode,
            clamp_gradient=self.clamp_gradient,
        )
        zero_point = self.zero_point_impl(x, scale, bit_width)
        return self.delay(x, value), scale, zero_point, bit_width
