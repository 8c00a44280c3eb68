"""Uniform affine quantization at a scale of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quant_core.components.bit_width import BitWidth, ConstBitWidth
from quant_core.components.delay import QuantDelay
from quant_core.components.fit import check_fits
from quant_core.components.granularity import PerGroup
from quant_core.components.int_scaling import IntScaling, int_scaling_for
from quant_core.components.tensor_quant.base import Quantized, TensorQuant
from quant_core.components.tensor_quant.fused import FusedQuant, fused_quant
from quant_core.components.tensor_quant.integer_options import check_clamp_gradient, check_integer, check_one_rounding
from quant_core.components.zero_point import ConstZeroPoint, ZeroPoint, ZeroZeroPoint
from quant_core.errors import ConfigurationError
from quant_core.ops import ClampGradient, integer_range, quantize_composed, quantize_int, rounding_ste
from quant_core.ops.rounding import check_rounding_mode


class IntQuant(TensorQuant):
    """Uniform affine quantization; formula and gradient are those of :func:`quant_core.ops.quantize_int`.

    ``scale = threshold / m``, where the scaling gives the threshold and ``m`` is the largest magnitude of the integer range:
    ``2^(b−1)`` signed, ``2^(b−1) − 1`` signed and narrow, ``2^b − 1`` unsigned; or a power of two where thresholds are restricted
    to powers of two.

    Args:
        scaling_impl: where the threshold comes from.
        bit_width_impl: where the bit width comes from; at least 2.
        signed: whether the integers can be negative.
        zero_point_impl: where the zero-point comes from.
        narrow_range: leave out one level.
        rounding_mode: how to round.
        rounding_impl: a module that rounds in place of ``rounding_mode``: :class:`~quant_core.components.StochasticRounding`,
            or a learned one.
        clamp_gradient: whether the gradient stops (``"masked"``) or passes (``"pass"``) where a value is clamped.
        quant_delay_steps: how many training steps to pass before quantization starts.
        int_scaling_impl: what the threshold is divided by; :class:`~quant_core.components.PowerOfTwoIntScaling` if left out
            with powers of two, else :class:`~quant_core.components.IntScaling`.

    Raises:
        ConfigurationError: when the options contradict each other.
        InputError: when the scale does not fit the tensor.

    >>> from quant_core.components import ConstBitWidth, ConstScaling
    >>> quant = IntQuant(ConstScaling(1.0), ConstBitWidth(3), signed=True)
    >>> quant(torch.tensor([0.3, -2.0]))
    (tensor([ 0.2500, -1.0000]), tensor(0.2500), tensor(0.), tensor(3.))
    """

    def __init__(
        self,
        scaling_impl: nn.Module,
        bit_width_impl: BitWidth,
        signed: bool,
        zero_point_impl: ZeroPoint | None = None,
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
        self.scaling_impl = scaling_impl
        self.bit_width_impl = bit_width_impl
        self.zero_point_impl = zero_point_impl if zero_point_impl is not None else ZeroZeroPoint()
        self.int_scaling_impl = int_scaling_for(
            int_scaling_impl, getattr(scaling_impl, "restrict_scaling_impl", None), signed, narrow_range
        )
        granularity = getattr(scaling_impl, "granularity", None)
        self.groups = granularity if isinstance(granularity, PerGroup) else None
        self.signed = signed
        self.narrow_range = narrow_range
        self.rounding_mode = check_rounding_mode(rounding_mode)
        self.rounding_impl = rounding_impl
        self.clamp_gradient = check_clamp_gradient(clamp_gradient)
        self._check_zero_point()
        self.delay = QuantDelay(quant_delay_steps)
        self.symmetric = self.zero_point_impl.constant == 0
        self.zero_on_grid = self.zero_point_impl.zero_on_grid
        self.rectifies = not signed and self.symmetric and quant_delay_steps == 0
        self._fused = self._fused_quant()

    def grid(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(scale, zero_point, bit_width)`` for ``x``."""
        bit_width = self.bit_width_impl()
        scale = self.scaling_impl(x) / self.int_scaling_impl(self._bits(bit_width))
        zero_point = self.zero_point_impl(x, scale, bit_width)
        if self.groups is not None:
            scale, zero_point = self.groups.spread(scale, x), self.groups.spread(zero_point, x)
        return scale, zero_point, bit_width

    def forward(self, x: Tensor, rectify: bool = False) -> Quantized:
        """``(value, scale, zero_point, bit_width)`` of ``x``, or of ``max(x, 0)`` when ``rectify`` is set."""
        fused = self._fused
        if fused is not None and fused.still_stands_for(self._modules) and (found := fused(x, rectify)) is not None:
            value, scale = found
            return value, scale, fused.zero_point, fused.bit_width
        if rectify and getattr(self.scaling_impl, "reads_input", True):
            x, rectify = torch.relu(x), False
        scale, zero_point, bit_width = self.grid(x)
        check_fits(x, scale)
        zero = zero_point if self.zero_point_impl.constant is None else self.zero_point_impl.constant
        if zero is zero_point:
            check_fits(x, zero_point, "zero-point")
        if self.rounding_impl is not None or not self.bit_width_impl.whole:
            value = self._compose(torch.relu(x) if rectify else x, scale, zero, bit_width)
            return self.delay(x, value), scale, zero_point, bit_width
        value = quantize_int(
            x,
            scale,
            zero,
            self._bits(bit_width),
            signed=self.signed,
            narrow_range=self.narrow_range,
            rounding_mode=self.rounding_mode,
            clamp_gradient=self.clamp_gradient,
            rectify=rectify,
        )
        return self.delay(x, value), scale, zero_point, bit_width

    def _fused_quant(self) -> FusedQuant | None:
        """What the native kernels compute in its place, where it consists of nothing but the commonest components."""
        kinds = {"bit_width_impl": ConstBitWidth, "zero_point_impl": ZeroZeroPoint, "int_scaling_impl": IntScaling}
        parts = {name: getattr(self, name) for name in ("scaling_impl", *kinds)}
        bits = self.bit_width_impl.constant
        if bits is None or any(type(parts[name]) is not kind for name, kind in kinds.items()):
            return None
        if self.rounding_impl is not None or self.delay.passed is not None or type(self).grid is not IntQuant.grid:
            return None
        bounds = integer_range(bits, signed=self.signed, narrow_range=self.narrow_range)
        return fused_quant(parts, self.clamp_gradient, bounds, parts["int_scaling_impl"](bits), self.rounding_mode)

    def _compose(self, x: Tensor, scale: Tensor, zero_point: Tensor | float, bit_width: Tensor) -> Tensor:
        """For a rounding of one's own, and for a range whose ends are fractions."""
        return quantize_composed(
            x,
            scale,
            zero_point,
            self._bits(bit_width),
            signed=self.signed,
            narrow_range=self.narrow_range,
            rounding=self.rounding_impl or self._round,
            clamp_gradient=self.clamp_gradient,
        )

    def _round(self, x: Tensor) -> Tensor:
        return rounding_ste(x, self.rounding_mode)

    def _check_zero_point(self) -> None:
        bits = self.bit_width_impl.constant
        if bits is None or not isinstance(self.zero_point_impl, ConstZeroPoint):
            return
        low, high = integer_range(bits, signed=self.signed, narrow_range=self.narrow_range)
        zero_point = self.zero_point_impl.zero_point
        if bool(torch.any((zero_point < low) | (zero_point > high))):
            raise ConfigurationError(
                "zero_point_init is out of range",
                why=f"the integers lie from {low:g} to {high:g}, the zero-points from {zero_point.min().item():g} to "
                f"{zero_point.max().item():g}",
                fix="Choose zero-points among the integers of the quantizer.",
            )

    def _bits(self, bit_width: Tensor) -> Tensor | float:
        return bit_width if self.bit_width_impl.constant is None else self.bit_width_impl.constant

    def extra_repr(self) -> str:
        """The options."""
        return f"signed={self.signed}, narrow_range={self.narrow_range}, rounding_mode={self.rounding_mode!r}"
