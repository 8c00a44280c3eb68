"""Uniform quantization with one scale to divide by and another to multiply with."""

from __future__ import annotations

from torch import Tensor, nn

from quant_core.components.bit_width import BitWidth
from quant_core.components.delay import QuantDelay
from quant_core.components.fit import check_fits
from quant_core.components.int_scaling import int_scaling_for
from quant_core.components.tensor_quant.base import Quantized, TensorQuant
from quant_core.components.tensor_quant.integer_options import check_clamp_gradient, check_integer, check_one_rounding
from quant_core.components.zero_point import ZeroZeroPoint
from quant_core.ops import ClampGradient, quantize_composed, quantize_decoupled
from quant_core.ops.rounding import check_rounding_mode


class DecoupledIntQuant(TensorQuant):
    """``clamp(round(x / pre_scale), lo, hi) · scale``: what a level stands for is learned apart from where it begins.

    Both scales are a threshold divided by the largest magnitude of the integer range, or by a power of two where thresholds are
    restricted to powers of two, as in :class:`~quant_core.components.IntQuant`.

    Args:
        pre_scaling_impl: where the threshold of the pre-scale comes from.
        scaling_impl: where the threshold of the scale comes from.
        bit_width_impl: where the bit width comes from; at least 2.
        signed: whether the integers can be negative.
        narrow_range: leave out one level.
        rounding_mode: how to round.
        clamp_gradient: whether the gradient stops or passes where a value is clamped.
        quant_delay_steps: how many training steps to pass before quantization starts.
        rounding_impl: a module that rounds in place of ``rounding_mode``.
        int_scaling_impl: what both thresholds are divided by; as for :class:`~quant_core.components.IntQuant`.

    Gradient, with ``c`` the clamped integer: ``g · scale / pre_scale`` to ``x``, ``g · c`` to ``scale``, and to ``pre_scale``
    that of the quotient, straight through rounding.

    Raises:
        ConfigurationError: when the options contradict each other.
        InputError: when a scale does not fit the tensor.

    >>> import torch
    >>> from quant_core.components import ConstBitWidth, ConstScaling
    >>> quant = DecoupledIntQuant(ConstScaling(4.0), ConstScaling(8.0), ConstBitWidth(3), signed=True)
    >>> quant(torch.tensor([1.2, -2.0]))
    (tensor([ 2., -4.]), tensor(2.), tensor(0.), tensor(3.))
    """

    def __init__(
        self,
        pre_scaling_impl: nn.Module,
        scaling_impl: nn.Module,
        bit_width_impl: BitWidth,
        signed: bool,
        narrow_range: bool = False,
        rounding_mode: str = "ROUND",
        clamp_gradient: ClampGradient = "masked",
        quant_delay_steps: int = 0,
        rounding_impl: nn.Module | None = None,
        int_scaling_impl: nn.Module | None = None,
    ) -> None:
        super().__init__()
        check_integer(bit_width_impl, signed, narrow_range)
        check_one_rounding(rounding_mode, rounding_impl)
        self.pre_scaling_impl = pre_scaling_impl
        self.scaling_impl = scaling_impl
        self.bit_width_impl = bit_width_impl
        restriction = getattr(scaling_impl, "restrict_scaling_impl", None)
        self.int_scaling_impl = int_scaling_for(int_scaling_impl, restriction, signed, narrow_range)
        self.zero_point_impl = ZeroZeroPoint()
        self.signed = signed
        self.narrow_range = narrow_range
        self.symmetric = self.zero_on_grid = True
        self.rounding_mode = check_rounding_mode(rounding_mode)
        self.rounding_impl = rounding_impl
        self.clamp_gradient = check_clamp_gradient(clamp_gradient)
        self.delay = QuantDelay(quant_delay_steps)

    def grid(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(scale, 0, bit_width)`` for ``x``."""
        bit_width = self.bit_width_impl()
        scale: Tensor = self.scaling_impl(x) / self.int_scaling_impl(self._bits(bit_width))
        return scale, self.zero_point_impl(x, scale, bit_width), bit_width

    def forward(self, x: Tensor) -> Quantized:
        """``(value, scale, 0, bit_width)`` of ``x``."""
        scale, zero_point, bit_width = self.grid(x)
        pre_scale = self.pre_scaling_impl(x) / self.int_scaling_impl(self._bits(bit_width))
        check_fits(x, scale)
        check_fits(x, pre_scale)
        kinds = {"signed": self.signed, "narrow_range": self.narrow_range}
        bits = self._bits(bit_width)
        if self.rounding_impl is not None:
            value = quantize_composed(
                x,
                scale,
                0,
                bits,
                rounding=self.rounding_impl,
                clamp_gradient=self.clamp_gradient,
                pre_scale=pre_scale,
                **kinds,
            )
        else:
            value = quantize_decoupled(
                x,
                pre_scale,
                scale,
                bits,
                rounding_mode=self.rounding_mode,
                clamp_gradient=self.clamp_gradient,
                **kinds,
            )
        return self.delay(x, value), scale, zero_point, bit_width

    def _bits(self, bit_width: Tensor) -> Tensor | float:
        return bit_width if self.bit_width_impl.constant is None else self.bit_width_impl.constant

    def extra_repr(self) -> str:
        """The options."""
        return f"signed={self.signed}, narrow_range={self.narrow_range}, rounding_mode={self.rounding_mode!r}"
