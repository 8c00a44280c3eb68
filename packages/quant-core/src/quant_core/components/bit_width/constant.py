"""A bit width that is fixed."""

from __future__ import annotations

import torch
from torch import Tensor

from quant_core.components.bit_width.base import BitWidth
from quant_core.errors import ConfigurationError


class ConstBitWidth(BitWidth):
    """A bit width that is fixed.

    Args:
        bit_width: a whole number from 1 to 32.

    Raises:
        ConfigurationError: for anything else.

    >>> ConstBitWidth(4)()
    tensor(4.)
    """

    bit_width: Tensor

    def __init__(self, bit_width: float) -> None:
        super().__init__()
        if (
            isinstance(bit_width, bool)
            or not isinstance(bit_width, int | float)
            or not 1 <= bit_width <= 32
            or bit_width % 1
        ):
            raise ConfigurationError(
                f"bit_width={bit_width!r} is not a bit width",
                why="a constant bit width is a whole number from 1 to 32",
                fix="Set bit_width to a number such as 4 or 8.",
            )
        self.constant = float(bit_width)
        self.register_buffer("bit_width", torch.tensor(float(bit_width)), persistent=False)

    def forward(self) -> Tensor:
        """The bit width, a 0-dim float tensor."""
        return self.bit_width

    def extra_repr(self) -> str:
        """The number."""
        return f"{self.constant:g}"
