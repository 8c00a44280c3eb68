"""What every tensor quantizer is."""

from __future__ import annotations

from torch import Tensor, nn

from quant_core.ops import FloatFormat

Quantized = tuple[Tensor, Tensor, Tensor, Tensor]


class TensorQuant(nn.Module):
    """Base of the tensor quantizers.

    Attributes:
        signed: whether the integers can be negative.
        narrow_range: whether one level is left out.
        rectifies: whether ``forward(x, rectify=True)`` computes the quantized ``max(x, 0)`` in one pass.
        symmetric: whether the zero-point is always 0.
        zero_on_grid: whether the real number 0 is one of the levels.
        float_format: which numbers ``value / scale`` may be, of a quantizer to minifloats; ``None`` of one to integers.
        takes_input: whether ``forward(weight, input_grid)`` reads the grid of the layer's input as well.
    """

    signed: bool
    narrow_range: bool = False
    rectifies: bool = False
    symmetric: bool = False
    zero_on_grid: bool = False
    float_format: FloatFormat | None = None
    takes_input: bool = False

    def grid(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(scale, zero_point, bit_width)`` for ``x``."""
        raise NotImplementedError(f"{type(self).__name__} must define grid(x)")
