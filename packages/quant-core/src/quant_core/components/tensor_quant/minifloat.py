"""Quantization to minifloats."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from quant_core.components.bit_width import ConstBitWidth
from quant_core.components.delay import QuantDelay
from quant_core.components.fit import check_fits
from quant_core.components.granularity import PerGroup
from quant_core.components.restriction import Restriction
from quant_core.components.tensor_quant.base import Quantized, TensorQuant
from quant_core.components.tensor_quant.integer_options import check_clamp_gradient
from quant_core.components.zero_point import ZeroZeroPoint
from quant_core.errors import ConfigurationError
from quant_core.ops import ClampGradient, FloatFormat, quantize_float
from quant_core.ops.rounding import check_rounding_mode


class FloatQuant(TensorQuant):
    """``r(x/scale) · scale``, where ``r`` rounds to a minifloat; gradient as :func:`quant_core.ops.quantize_float`.

    ``scale = threshold / max_value``: the threshold is the largest number that is not clamped. Where thresholds are restricted to
    powers of two, ``max_value`` is as well, so that the scale is one.

    Args:
        scaling_impl: where the threshold comes from.
        exponent_bit_width: bits of the exponent.
        mantissa_bit_width: bits of the mantissa.
        exponent_bias: what is subtracted from the exponent; ``2^(exponent_bit_width − 1) − 1`` by default.
        inf_values: the mantissas, as bits, that stand for infinity beside the largest exponent.
        nan_values: those that stand for NaN.
        has_subnormal: whether there are numbers between 0 and the smallest normal one.
        saturating: whether what is too large becomes the largest number, and not infinity or NaN.
        rounding_mode: how to round.
        clamp_gradient: whether the gradient stops (``"masked"``) or passes (``"pass"``) where a value is clamped.
        signed: must be true; a minifloat has a sign.
        quant_delay_steps: how many training steps to pass before quantization starts.

    Raises:
        ConfigurationError: when the options contradict each other.
        InputError: when the scale does not fit the tensor.

    >>> import torch
    >>> from quant_core.components import ConstScaling
    >>> quant = FloatQuant(ConstScaling(480.0), exponent_bit_width=4, mantissa_bit_width=3)
    >>> quant(torch.tensor([0.3, -17.3]))[0].tolist()
    [0.3125, -18.0]
    """

    float_format: FloatFormat

    def __init__(
        self,
        scaling_impl: nn.Module,
        exponent_bit_width: int,
        mantissa_bit_width: int,
        exponent_bias: int | None = None,
        inf_values: Sequence[str] | None = None,
        nan_values: Sequence[str] | None = None,
        has_subnormal: bool = True,
        saturating: bool = True,
        rounding_mode: str = "ROUND",
        clamp_gradient: ClampGradient = "masked",
        signed: bool = True,
        quant_delay_steps: int = 0,
    ) -> None:
        super().__init__()
        if not signed:
            raise ConfigurationError(
                "a minifloat cannot be unsigned",
                why="one of its bits is the sign, got signed=False",
                fix="Set signed=True, or use an unsigned integer quantizer.",
            )
        if isinstance(getattr(scaling_impl, "granularity", None), PerGroup):
            raise ConfigurationError(
                "a minifloat quantizer takes no group_size",
                why="its scale is one for the tensor or one for each channel",
                fix="Leave group_size out, or set scaling_per_output_channel=True.",
            )
        self.scaling_impl = scaling_impl
        self.float_format = FloatFormat.of_bits(
            exponent_bit_width,
            mantissa_bit_width,
            exponent_bias,
            inf_values=inf_values,
            nan_values=nan_values,
            has_subnormal=has_subnormal,
            saturating=saturating,
        )
        self._divisor = _divisor(self.float_format.max_value, getattr(scaling_impl, "restrict_scaling_impl", None))
        self.bit_width_impl = ConstBitWidth(self.float_format.bit_width)
        self.zero_point_impl = ZeroZeroPoint()
        self.signed = self.symmetric = self.zero_on_grid = True
        self.rounding_mode = check_rounding_mode(rounding_mode)
        self.clamp_gradient = check_clamp_gradient(clamp_gradient)
        self.delay = QuantDelay(quant_delay_steps)

    def grid(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(scale, 0, bit_width)`` for ``x``; the bit width is that of all bits with the sign."""
        bit_width = self.bit_width_impl()
        scale: Tensor = self.scaling_impl(x) / self._divisor
        return scale, self.zero_point_impl(x, scale, bit_width), bit_width

    def forward(self, x: Tensor) -> Quantized:
        """``(value, scale, 0, bit_width)`` of ``x``."""
        scale, zero_point, bit_width = self.grid(x)
        check_fits(x, scale)
        value = quantize_float(
            x, scale, self.float_format, rounding_mode=self.rounding_mode, clamp_gradient=self.clamp_gradient
        )
        return self.delay(x, value), scale, zero_point, bit_width

    def extra_repr(self) -> str:
        """The format and the rounding mode."""
        return f"{self.float_format}, rounding_mode={self.rounding_mode!r}"


def _divisor(max_value: float, restriction: Restriction | None) -> float:
    """What a threshold is divided by, so that the scale is what the restriction says."""
    if not getattr(restriction, "power_of_two", False):
        return max_value
    assert restriction is not None
    return float(restriction.of_threshold(torch.tensor(max_value, dtype=torch.float64, device="cpu")))
