"""Quantization to three values."""

from __future__ import annotations

from torch import Tensor

from quant_core.components.bit_width import ConstBitWidth
from quant_core.components.delay import QuantDelay
from quant_core.components.fit import check_fits
from quant_core.components.scaling import Scaling
from quant_core.components.tensor_quant.base import Quantized, TensorQuant
from quant_core.components.zero_point import ZeroZeroPoint
from quant_core.errors import ConfigurationError
from quant_core.ops import quantize_ternary


class TernaryQuant(TensorQuant):
    """``sign(x) · [|x| > threshold · scale] · scale``; gradient as :func:`quant_core.ops.quantize_ternary`.

    What became 0 gets no gradient. :class:`~quant_core.components.IntQuant` with 2 bits and narrow range, which the presets take,
    has the threshold ½ and a gradient everywhere.

    Args:
        scaling_impl: where the scale comes from.
        threshold: how large a magnitude must be, as a share of the scale, not to become 0; between 0 and 1.
        signed: must be true; ternary values are −1, 0 and +1.
        quant_delay_steps: how many training steps to pass before quantization starts.

    Raises:
        ConfigurationError: when ``threshold`` is out of range, or ``signed`` is false.

    Li, Zhang and Liu, "Ternary weight networks", arXiv:1605.04711, equation 3.

    >>> import torch
    >>> from quant_core.components import ConstScaling
    >>> TernaryQuant(ConstScaling(1.0), threshold=0.5)(torch.tensor([0.04, -0.6, 3.3]))[0]
    tensor([ 0., -1.,  1.])
    """

    def __init__(
        self, scaling_impl: Scaling, threshold: float, signed: bool = True, quant_delay_steps: int = 0
    ) -> None:
        super().__init__()
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 < threshold < 1:
            raise ConfigurationError(
                f"threshold={threshold!r} is not a share of the scale",
                why="what lies below threshold · scale becomes 0, and what lies above becomes the scale",
                fix="Use a number between 0 and 1, such as 0.5, which rounds to the nearest.",
            )
        if not signed:
            raise ConfigurationError(
                "ternary quantization cannot be unsigned",
                why="its three values are −scale, 0 and +scale, got signed=False",
                fix="Set signed=True, or use an unsigned integer quantizer of 2 bits.",
            )
        self.signed = self.symmetric = self.zero_on_grid = self.narrow_range = True
        self.scaling_impl = scaling_impl
        self.threshold = float(threshold)
        self.bit_width_impl = ConstBitWidth(2)
        self.zero_point_impl = ZeroZeroPoint()
        self.delay = QuantDelay(quant_delay_steps)

    def grid(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(scale, 0, 2)`` for ``x``."""
        scale: Tensor = self.scaling_impl(x)
        bit_width = self.bit_width_impl()
        return scale, self.zero_point_impl(x, scale, bit_width), bit_width

    def forward(self, x: Tensor) -> Quantized:
        """``(value, scale, 0, 2)`` of ``x``."""
        scale, zero_point, bit_width = self.grid(x)
        check_fits(x, scale)
        return self.delay(x, quantize_ternary(x, scale, self.threshold)), scale, zero_point, bit_width

    def extra_repr(self) -> str:
        """The threshold."""
        return f"threshold={self.threshold:g}"
