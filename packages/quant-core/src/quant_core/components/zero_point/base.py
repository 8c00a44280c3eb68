"""What every zero-point is."""

from __future__ import annotations

from torch import Tensor, nn


class ZeroPoint(nn.Module):
    """Base of all zero-points: ``forward(x, scale, bit_width)`` gives a tensor broadcastable to ``x``.

    Attributes:
        constant: the number 0 when the zero-point is always 0, which saves two passes over memory.
        zero_on_grid: whether it is a whole number of the quantizer's range, so that the real number 0 is a level.
    """

    constant: float | None = None
    zero_on_grid: bool = True

    @property
    def reads_input(self) -> bool:
        """Whether the next forward looks at the values of ``x``, and not only at parameters."""
        return True

    def forward(self, x: Tensor, scale: Tensor, bit_width: Tensor) -> Tensor:
        """The zero-point for ``x`` on a grid of that scale and bit width."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(x, scale, bit_width)")
