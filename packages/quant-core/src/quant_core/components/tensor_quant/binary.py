"""Quantization to two values."""

from __future__ import annotations

from torch import Tensor

from quant_core.components.bit_width import ConstBitWidth
from quant_core.components.delay import QuantDelay
from quant_core.components.fit import check_fits
from quant_core.components.scaling import Scaling
from quant_core.components.tensor_quant.base import Quantized, TensorQuant
from quant_core.components.zero_point import ZeroZeroPoint
from quant_core.errors import ConfigurationError
from quant_core.ops import quantize_binary


class BinaryQuant(TensorQuant):
    """``sign(x) · scale``; gradient as :func:`quant_core.ops.quantize_binary`.

    Args:
        scaling_impl: where the scale comes from.
        signed: must be true; binary values are −1 and +1.
        quant_delay_steps: how many training steps to pass before quantization starts.

    Raises:
        ConfigurationError: when ``signed`` is false.

    >>> import torch
    >>> from quant_core.components import ConstScaling
    >>> BinaryQuant(ConstScaling(0.1))(torch.tensor([0.04, -0.6, 3.3]))[0]
    tensor([ 0.1000, -0.1000,  0.1000])
    """

    clamped = False

    def __init__(self, scaling_impl: Scaling, signed: bool = True, quant_delay_steps: int = 0) -> None:
        super().__init__()
        if not signed:
            raise ConfigurationError(
                "binary quantization cannot be unsigned",
                why="its two values are −scale and +scale, got signed=False",
                fix="Set signed=True, or use an unsigned integer quantizer of 2 bits.",
            )
        self.signed = self.symmetric = True
        self.scaling_impl = scaling_impl
        self.bit_width_impl = ConstBitWidth(1)
        self.zero_point_impl = ZeroZeroPoint()
        self.delay = QuantDelay(quant_delay_steps)

    def grid(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(scale, 0, 1)`` for ``x``."""
        scale: Tensor = self.scaling_impl(x)
        bit_width = self.bit_width_impl()
        return scale, self.zero_point_impl(x, scale, bit_width), bit_width

    def forward(self, x: Tensor) -> Quantized:
        """``(value, scale, 0, 1)`` of ``x``."""
        scale, zero_point, bit_width = self.grid(x)
        check_fits(x, scale)
        value = quantize_binary(x, scale, clamped=self.clamped)
        return self.delay(x, value), scale, zero_point, bit_width


class ClampedBinaryQuant(BinaryQuant):
    """``sign(clamp(x, −scale, scale)) · scale``: as :class:`BinaryQuant`, but values beyond the scale get no gradient.

    >>> import torch
    >>> from quant_core.components import ConstScaling
    >>> x = torch.tensor([0.04, -0.6], requires_grad=True)
    >>> ClampedBinaryQuant(ConstScaling(0.1))(x)[0].sum().backward()
    >>> x.grad
    tensor([0.1000, 0.0000])
    """

    clamped = True
