"""How many of the low bits of an accumulator are dropped."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quant_core.components.scaling import Scaling
from quant_core.ops import ceil_ste


class TruncScaling(nn.Module):
    """Base of all shifts: ``forward(x, scale, input_bit_width, output_bit_width, signed)`` gives the number of bits.

    ``x`` is the accumulator, ``scale`` its scale. The result is a whole number, 0-dim or of the shape of ``scale``; a
    negative one adds bits.
    """

    def forward(
        self, x: Tensor, scale: Tensor, input_bit_width: Tensor, output_bit_width: Tensor, signed: bool
    ) -> Tensor:
        """The number of bits to drop."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(x, scale, …)")


class TruncMsbScaling(TruncScaling):
    """``input_bit_width − output_bit_width``: keeps the most significant bits, so that nothing is clamped but what rounds up.

    >>> TruncMsbScaling()(torch.zeros(1), torch.tensor(0.5), torch.tensor(12.0), torch.tensor(8.0), True)
    tensor(4.)
    """

    def forward(
        self, x: Tensor, scale: Tensor, input_bit_width: Tensor, output_bit_width: Tensor, signed: bool
    ) -> Tensor:
        """The difference of the two bit widths."""
        return input_bit_width - output_bit_width


class TruncStatsScaling(TruncScaling):
    """``min(max(⌈log2(threshold / (scale · 2^(b − signed)))⌉, 0), input_bit_width − b)``: as many as the values call for.

    An accumulator seldom uses all of its bits. Here those bits are kept in which the values lie, and what lies beyond is clamped.

    Args:
        scaling_impl: where the threshold comes from, the largest value that need not be clamped.

    Gradient: straight through the ceiling, to the threshold and to the bit widths.

    >>> from quant_core.components import ConstScaling
    >>> TruncStatsScaling(ConstScaling(64.0))(torch.zeros(1), torch.tensor(0.125), torch.tensor(12.0), torch.tensor(8.0), True)
    tensor(2.)
    """

    def __init__(self, scaling_impl: Scaling) -> None:
        super().__init__()
        self.scaling_impl = scaling_impl

    @property
    def reads_input(self) -> bool:
        """Whether the next forward looks at the values of ``x``."""
        return self.scaling_impl.reads_input

    def forward(
        self, x: Tensor, scale: Tensor, input_bit_width: Tensor, output_bit_width: Tensor, signed: bool
    ) -> Tensor:
        """The number of bits between the values and the range."""
        magnitude = output_bit_width - 1 if signed else output_bit_width
        needed = ceil_ste(torch.log2(self.scaling_impl(x) / scale) - magnitude)
        return torch.minimum(needed.clamp(min=0.0), input_bit_width - output_bit_width)
