"""Uniform quantization of normalized weights, and of weights whose accumulator cannot overflow."""

from __future__ import annotations

from torch import Tensor

from quant_core.components.bit_width import BitWidth
from quant_core.components.delay import QuantDelay
from quant_core.components.fit import check_fits
from quant_core.components.pre_scaling import AccumulatorAwarePreScaling, InputGrid, PreScaling
from quant_core.components.scaling import Scaling
from quant_core.components.tensor_quant.base import Quantized, TensorQuant
from quant_core.components.tensor_quant.integer_options import check_clamp_gradient, check_integer
from quant_core.components.zero_point import ZeroZeroPoint
from quant_core.errors import InputError
from quant_core.ops import ClampGradient, quantize_decoupled
from quant_core.ops.rounding import check_rounding_mode


class WeightNormIntQuant(TensorQuant):
    """``clamp(round(x / pre_scale), lo, hi) · scale`` with ``pre_scale = scale · ‖x‖ / g``: a weight of the learned length ``g``.

    Args:
        scaling_impl: where the scale comes from; it is not divided by the largest integer.
        pre_scaling_impl: where the pre-scale comes from, see :mod:`quant_core.components.pre_scaling`.
        bit_width_impl: where the bit width comes from; at least 2.
        signed: whether the integers can be negative.
        narrow_range: leave out one level.
        rounding_mode: how to round.
        clamp_gradient: whether the gradient stops or passes where a value is clamped.
        quant_delay_steps: how many training steps to pass before quantization starts.

    Gradient: that of each operation, straight through rounding.

    Raises:
        ConfigurationError: when the options contradict each other.
        InputError: when the scale does not fit the tensor.
    """

    rounding_mode: str

    def __init__(
        self,
        scaling_impl: Scaling,
        pre_scaling_impl: PreScaling,
        bit_width_impl: BitWidth,
        signed: bool = True,
        narrow_range: bool = True,
        rounding_mode: str = "ROUND",
        clamp_gradient: ClampGradient = "masked",
        quant_delay_steps: int = 0,
    ) -> None:
        super().__init__()
        check_integer(bit_width_impl, signed, narrow_range)
        self.scaling_impl = scaling_impl
        self.pre_scaling_impl = pre_scaling_impl
        self.takes_input = pre_scaling_impl.takes_input
        self.bit_width_impl = bit_width_impl
        self.zero_point_impl = ZeroZeroPoint()
        self.signed = signed
        self.narrow_range = narrow_range
        self.symmetric = self.zero_on_grid = True
        self.rounding_mode = check_rounding_mode(rounding_mode)
        self.clamp_gradient = check_clamp_gradient(clamp_gradient)
        self.delay = QuantDelay(quant_delay_steps)

    def grid(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(scale, 0, bit_width)`` for ``x``."""
        bit_width = self.bit_width_impl()
        scale: Tensor = self.scaling_impl(x)
        return scale, self.zero_point_impl(x, scale, bit_width), bit_width

    def forward(self, x: Tensor, input: InputGrid | None = None) -> Quantized:
        """``(value, scale, 0, bit_width)`` of ``x``."""
        scale, zero_point, bit_width = self.grid(x)
        check_fits(x, scale)
        centred = self.pre_scaling_impl.centred(x if x.dtype == scale.dtype else x.to(scale.dtype))
        value = quantize_decoupled(
            centred,
            self.pre_scaling_impl(centred, scale, input),
            scale,
            bit_width if self.bit_width_impl.constant is None else self.bit_width_impl.constant,
            signed=self.signed,
            narrow_range=self.narrow_range,
            rounding_mode=self.rounding_mode,
            clamp_gradient=self.clamp_gradient,
        )
        value = value if value.dtype == x.dtype else value.to(x.dtype)
        return self.delay(x, value), scale, zero_point, bit_width

    def extra_repr(self) -> str:
        """The options."""
        return f"signed={self.signed}, narrow_range={self.narrow_range}, rounding_mode={self.rounding_mode!r}"


class AccumulatorAwareIntQuant(WeightNormIntQuant):
    """As :class:`WeightNormIntQuant`, rounded towards zero, with a length that no accumulator of ``P`` bits overflows for.

    Rounding is not an option: towards zero no magnitude grows, which is what the bound rests on.

    Args:
        scaling_impl: where the scale comes from; it is not divided by the largest integer.
        pre_scaling_impl: where the pre-scale comes from; it holds the bits of the accumulator.
        bit_width_impl: where the bit width of the weight comes from; at least 2.
        signed: whether the integers can be negative.
        narrow_range: leave out one level.
        clamp_gradient: whether the gradient stops or passes where a value is clamped.
        quant_delay_steps: how many training steps to pass before quantization starts.

    Raises:
        ConfigurationError: when the options contradict each other.
        InputError: when nothing says how many bits the input has, or the scale does not fit the tensor.
    """

    def __init__(
        self,
        scaling_impl: Scaling,
        pre_scaling_impl: AccumulatorAwarePreScaling,
        bit_width_impl: BitWidth,
        signed: bool = True,
        narrow_range: bool = True,
        clamp_gradient: ClampGradient = "masked",
        quant_delay_steps: int = 0,
    ) -> None:
        super().__init__(
            scaling_impl,
            pre_scaling_impl,
            bit_width_impl,
            signed,
            narrow_range,
            "TO_ZERO",
            clamp_gradient,
            quant_delay_steps,
        )
        self._stated = pre_scaling_impl.stated

    def forward(self, x: Tensor, input: InputGrid | None = None) -> Quantized:
        """``(value, scale, 0, bit_width)`` of ``x``, for an input of that grid, or of the one that the options state."""
        known = self._stated if input is None else input
        if known is None:
            raise InputError(
                "nothing says how many bits the input of the layer has",
                why="the weights are bounded so that the accumulator holds their products with any input of those bits",
                fix="Set input_quant on this layer or return_quant_tensor=True on the one before it, or state it with "
                "weight_input_bit_width and weight_input_signed.",
            )
        return super().forward(x, known)
