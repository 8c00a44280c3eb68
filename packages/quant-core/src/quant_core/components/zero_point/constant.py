"""Zero-points that are fixed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from quant_core.components.exact import ExactBuffers
from quant_core.components.zero_point.base import ZeroPoint
from quant_core.components.zero_point.given import numbers_of
from quant_core.errors import ConfigurationError

_WHY: Final = "a zero-point is the integer that stands for 0, so that 0 is represented exactly"


class ZeroZeroPoint(ZeroPoint):
    """The zero-point 0: symmetric quantization.

    >>> ZeroZeroPoint()(torch.ones(3), torch.tensor(0.1), torch.tensor(8.0))
    tensor(0.)
    """

    constant = 0.0
    zero_point: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("zero_point", torch.tensor(0.0), persistent=False)

    @property
    def reads_input(self) -> bool:
        """Never."""
        return False

    def forward(self, x: Tensor, scale: Tensor, bit_width: Tensor) -> Tensor:
        """The number 0, a 0-dim tensor."""
        return self.zero_point


class ConstZeroPoint(ExactBuffers, ZeroPoint):
    """A fixed integer zero-point, per tensor (a number) or per channel (nested numbers of the scale's shape).

    Nothing rounds it, also where a model is converted to float16 or bfloat16.

    Args:
        zero_point_init: whole numbers inside of the integer range of the quantizer.

    Raises:
        ConfigurationError: when it holds no numbers, or one that is not whole.

    >>> ConstZeroPoint(3)(torch.ones(3), torch.tensor(0.1), torch.tensor(8.0))
    tensor(3.)
    """

    zero_point: Tensor
    exact = ("zero_point",)

    def __init__(self, zero_point_init: float | Sequence[float] | Tensor) -> None:
        super().__init__()
        zero_point = numbers_of(zero_point_init, why=_WHY, fix="Use the number of steps from the lowest level to 0.")
        if not zero_point.is_meta and not torch.equal(zero_point, zero_point.round()):
            raise ConfigurationError(
                f"zero_point_init={zero_point_init!r} is not an integer",
                why=_WHY,
                fix="Round it, for example to the number of steps between the lowest level and 0.",
            )
        self.register_buffer("zero_point", zero_point)

    @property
    def reads_input(self) -> bool:
        """Never."""
        return False

    def forward(self, x: Tensor, scale: Tensor, bit_width: Tensor) -> Tensor:
        """The fixed zero-point."""
        return self.zero_point
