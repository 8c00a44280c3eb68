"""Values that are held as integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, fx

from export_qcdq.grid import kind_of
from export_qcdq.lowering import Lowering
from export_qcdq.naming import literal, part
from quant_core.export import Quantizer

_MOVED: Final = 128
"""What is added to signed integers of 8 bits, and to their zero-point, so that both are unsigned."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """A value as integers.

    Attributes:
        node: the new node that gives them, of uint8.
        quantizer: whose grid they are on.
        name: by which their ONNX value is told.
    """

    node: fx.Node
    quantizer: Quantizer
    name: str

    @property
    def shift(self) -> int:
        """What was added to them."""
        return shift_of(self.quantizer)

    @property
    def zero_point(self) -> int:
        """The integer that stands for 0."""
        assert self.quantizer.zero_point is not None
        return int(self.quantizer.zero_point) + self.shift

    @property
    def scale(self) -> Tensor:
        """What an integer is multiplied with, 0-dim."""
        assert self.quantizer.scale is not None
        return self.quantizer.scale.detach().to(torch.float32).reshape(())

    def zero(self, lowering: Lowering) -> fx.Node:
        """The constant for :attr:`zero_point`."""
        return literal(lowering.builder, torch.tensor(self.zero_point, dtype=torch.uint8))

    def step(self, lowering: Lowering) -> fx.Node:
        """The constant for :attr:`scale`."""
        return lowering.builder.constant(part(self.quantizer.where, "scale"), self.scale)


def shift_of(quantizer: Quantizer) -> int:
    """What is added to the integers of a quantizer so that they are unsigned."""
    return _MOVED if kind_of(quantizer) is torch.int8 else 0


def shown(node: fx.Node) -> str:
    """The name by which the ONNX value of the integers of a node is told.

    Operators that follow each other may be fused, and the value of the first one with them.
    """
    return f"{node.name}_held"
