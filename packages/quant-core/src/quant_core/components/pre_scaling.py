"""What the weight of a normalized quantizer is divided by: its direction is learned apart from its length.

With a norm ``‖v‖`` and a learned length ``g`` the weight is ``g · v/‖v‖``, in steps of ``scale``: it is divided by the
*pre-scale* ``scale · ‖v‖ / g`` and multiplied, after rounding, by ``scale``. So the length stays what was learned, however the
optimizer moves ``v``.

Salimans and Kingma, "Weight normalization", NeurIPS 2016, equation 2; Colbert, Pappalardo and Petri-Koenig, "A2Q:
accumulator-aware quantization with guaranteed overflow avoidance", ICCV 2023, section 4; Colbert, Pappalardo, Petri-Koenig and
Umuroglu, "A2Q+: improving accumulator-aware weight quantization", ICML 2024, section 3.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from quant_core.components.stats import Statistic, check_finite_at_each_step
from quant_core.errors import ConfigurationError
from quant_core.ops import clamp_min_ste

_MARGIN = 1.0 - 2.0**-16
"""Norms and quotients are computed in float32. Less than this share of them is lost in rounding, so that a sum of integers that
must not exceed a bound cannot be lifted over it."""


class InputGrid(NamedTuple):
    """What a quantizer of weights may need to know of the input that they are multiplied with.

    Attributes:
        bit_width: number of bits, one element.
        signed: whether its integers lie around zero. With a zero-point they may be as far from it as unsigned ones from 0.
    """

    bit_width: Tensor
    signed: bool


class PreScaling(nn.Module):
    """Base of all pre-scales: ``forward(x, scale, input)``, positive and broadcastable to ``x``.

    Attributes:
        takes_input: whether it needs the grid of the input.
    """

    takes_input = False

    def centred(self, x: Tensor) -> Tensor:
        """The weight that is quantized in place of ``x``."""
        return x

    def forward(self, x: Tensor, scale: Tensor, input: InputGrid | None) -> Tensor:
        """The pre-scale of the centred weight ``x``."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(x, scale, input)")


class WeightNormPreScaling(PreScaling):
    """``scale · ‖x‖ / g`` with a learned length ``g``.

    Args:
        normalize_stats_impl: the norm, for example :class:`~quant_core.components.L2Norm`.
        pre_scaling_init: where ``g`` starts, usually at the norm of the weight.
        pre_scaling_min_val: the smallest norm and length, for a weight that is all zero.
        module: the layer whose weight it is, or a tuple of layers; for messages only.

    Raises:
        InputError: from ``forward``, when the weight holds infinities or NaN; in eager mode on the CPU.
    """

    def __init__(
        self,
        normalize_stats_impl: Statistic,
        pre_scaling_init: Tensor,
        pre_scaling_min_val: float = 1e-10,
        module: nn.Module | tuple[nn.Module, ...] = (),
    ) -> None:
        super().__init__()
        self.normalize_stats_impl = normalize_stats_impl
        self._layers = module if isinstance(module, tuple) else (module,)
        self.pre_scaling_min_val = pre_scaling_min_val
        self.value = nn.Parameter(self._stored(pre_scaling_init.detach().clamp(min=pre_scaling_min_val)))

    def forward(self, x: Tensor, scale: Tensor, input: InputGrid | None) -> Tensor:
        """The pre-scale."""
        return scale * self._norm(x) / clamp_min_ste(self.value, self.pre_scaling_min_val)

    def _norm(self, x: Tensor) -> Tensor:
        norm: Tensor = self.normalize_stats_impl(x)
        check_finite_at_each_step(norm, self._layers)
        return norm.clamp(min=self.pre_scaling_min_val)

    def _stored(self, length: Tensor) -> Tensor:
        return length.clone()


class AccumulatorAwarePreScaling(WeightNormPreScaling):
    """``scale · ‖x‖₁ / min(g, scale · c)`` with ``g = 2^value`` and ``c = (2^(P−1) − 1) / 2^(N − [input is signed])``.

    The integers of a channel, rounded towards zero, then have magnitudes that sum to at most ``c``. With an input of ``N`` bits,
    whose magnitude is at most ``2^(N − [signed])``, no sum of products leaves the range of ``P`` signed bits, whatever the input.

    Args:
        normalize_stats_impl: the L1 norm, of each output channel.
        pre_scaling_init: where ``g`` starts, usually at the norm of the weight.
        accumulator_bit_width: ``P``, the bits of the sum of products before a bias is added, from 2 to 64.
        pre_scaling_min_val: the smallest norm and length, for a weight that is all zero.
        input_bit_width: ``N``, where the layer does not know it, because it has no ``input_quant`` and gets a plain tensor.
        input_signed: whether the input is signed, together with ``input_bit_width``.
        module: the layer whose weight it is, or a tuple of layers; for messages only.

    ``c`` is taken smaller by a share of 2⁻¹⁶, so that the bound holds in spite of the rounding errors of floats.

    Raises:
        ConfigurationError: when an option is out of range.
        InputError: from ``forward``, when the weight holds infinities or NaN; in eager mode on the CPU.
    """

    takes_input = True

    def __init__(
        self,
        normalize_stats_impl: Statistic,
        pre_scaling_init: Tensor,
        accumulator_bit_width: int = 32,
        pre_scaling_min_val: float = 1e-10,
        input_bit_width: int | None = None,
        input_signed: bool | None = None,
        module: nn.Module | tuple[nn.Module, ...] = (),
    ) -> None:
        super().__init__(normalize_stats_impl, pre_scaling_init, pre_scaling_min_val, module)
        if isinstance(accumulator_bit_width, bool) or accumulator_bit_width not in range(2, 65):
            raise ConfigurationError(
                f"accumulator_bit_width={accumulator_bit_width!r} is out of range",
                why="an accumulator has a whole number of bits from 2 to 64",
                fix="Use a number such as 16 or 24.",
            )
        if (input_bit_width is None) != (input_signed is None):
            raise ConfigurationError(
                "input_bit_width and input_signed belong together",
                why=f"got input_bit_width={input_bit_width!r} and input_signed={input_signed!r}",
                fix="Set both, or neither where the layer quantizes its input.",
            )
        self.accumulator_bit_width = accumulator_bit_width
        self.stated = None
        if input_bit_width is not None and input_signed is not None:
            self.stated = InputGrid(torch.tensor(float(input_bit_width)), input_signed)

    def extra_repr(self) -> str:
        """The bits of the accumulator."""
        return f"accumulator_bit_width={self.accumulator_bit_width}"

    def _stored(self, length: Tensor) -> Tensor:
        return torch.log2(length)

    def forward(self, x: Tensor, scale: Tensor, input: InputGrid | None) -> Tensor:
        """The pre-scale."""
        assert input is not None  # the quantizer has refused to go on without
        length = torch.minimum(torch.exp2(self.value), self._bound(scale, input))
        return self._norm(x) / (length / scale)

    def excess(self, scale: Tensor, input: InputGrid) -> Tensor:
        """``max(g − scale · c, 0)``, how far the learned length lies beyond the bound, where it has no effect."""
        return torch.relu(torch.exp2(self.value) - self._bound(scale, input))

    def _bound(self, scale: Tensor, input: InputGrid) -> Tensor:
        return scale * (self._most(input) * _MARGIN)

    def _most(self, input: InputGrid) -> Tensor:
        """``c``, the largest sum of magnitudes of a channel's integers."""
        magnitude = input.bit_width.detach() - (1 if input.signed else 0)
        return (2.0 ** (self.accumulator_bit_width - 1) - 1.0) * torch.exp2(-magnitude)


class AccumulatorAwareZeroCenterPreScaling(AccumulatorAwarePreScaling):
    """As :class:`AccumulatorAwarePreScaling` for weights without their mean, with ``c = (2^P − 2) / (2^N − 1)``.

    Of the magnitudes of centred integers no more than ``c/2`` are positive and no more than ``c/2`` negative. An input of ``N``
    bits, whose ends are ``2^N − 1`` apart, cannot drive both to their worst, so that about twice the sum of magnitudes fits.
    """

    def centred(self, x: Tensor) -> Tensor:
        """``x`` without the mean of each channel."""
        rows = self.normalize_stats_impl.granularity
        for _ in range(2):  # what is left of the mean of large weights is gone after the second time
            means = rows.rows(x).mean(dim=1).reshape(rows.scale_shape(x))
            x = x - means
        return x

    def _most(self, input: InputGrid) -> Tensor:
        span = torch.exp2(input.bit_width.detach()) - 1.0
        return (2.0**self.accumulator_bit_width - 2.0) / span
