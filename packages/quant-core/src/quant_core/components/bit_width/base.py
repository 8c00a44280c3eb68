"""What every bit width is."""

from __future__ import annotations

from torch import Tensor, nn


class BitWidth(nn.Module):
    """Base of all bit widths: ``forward()`` gives a 0-dim float tensor.

    Attributes:
        constant: the same as a number when it never changes, which makes clamping cheaper; ``None`` otherwise.
        whole: whether it is always a whole number; one that is not can be trained with, and cannot be exported.
    """

    constant: float | None = None
    whole: bool = True

    @property
    def learns(self) -> bool:
        """Whether training changes it: it has a parameter that is not frozen."""
        return any(parameter.requires_grad for parameter in self.parameters())

    def forward(self) -> Tensor:
        """The bit width, a 0-dim float tensor."""
        raise NotImplementedError(f"{type(self).__name__} must define forward()")


class RelativeBitWidth(nn.Module):
    """Base of the bit widths of accumulators, which depend on the bit width that comes in: ``forward(input_bit_width)``."""

    @property
    def learns(self) -> bool:
        """Whether training changes it: it has a parameter that is not frozen."""
        return any(parameter.requires_grad for parameter in self.parameters())

    def forward(self, input_bit_width: Tensor) -> Tensor:
        """The bit width that goes out, a 0-dim float tensor."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(input_bit_width)")


def bit_width_for(impl: nn.Module, input_bit_width: Tensor) -> Tensor:
    """The bit width of either kind, for a tensor that comes in with ``input_bit_width``.

    >>> import torch
    >>> from quant_core.components import ConstBitWidth
    >>> bit_width_for(ConstBitWidth(8), torch.tensor(20.0))
    tensor(8.)
    """
    found: Tensor = impl(input_bit_width) if isinstance(impl, RelativeBitWidth) else impl()
    return found
