"""Values that a FINN-ONNX file holds as integers, to be multiplied with a scale later."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx

from quant_core.export import Quantizer
from quant_core.ops import integer_range


@dataclass(frozen=True, kw_only=True)
class Integers:
    """``integers · scale``, of which the file has the integers so far.

    Attributes:
        node: the node of the new graph that gives the integers.
        scale: float32, broadcastable to them.
        name: the qualified name of the scale.
        low: the smallest integer that there can be.
        high: the largest one.
        datatype: how FINN calls their type; empty where it is told by the node itself.
    """

    node: fx.Node
    scale: Tensor
    name: str
    low: int
    high: int
    datatype: str = ""

    @property
    def per_tensor(self) -> bool:
        """Whether the scale is one number."""
        return self.scale.numel() == 1

    def on_the_grid_of(self, other: Integers) -> bool:
        """Whether both have the same scale, one number."""
        return self.per_tensor and other.per_tensor and bool(self.scale.reshape(()) == other.scale.reshape(()))


def bounds(quantizer: Quantizer) -> tuple[int, int]:
    """The smallest and the largest integer of a quantizer."""
    if quantizer.op in ("quant::binary", "quant::ternary"):
        return -1, 1
    assert quantizer.bit_width is not None  # constant, as the check has found
    kinds = {"signed": quantizer.signed, "narrow_range": quantizer.narrow_range}
    low, high = integer_range(quantizer.bit_width, **kinds)
    return int(low), int(high)


def sum_of_products(low: int, high: int, weight: Tensor, output_axis: int) -> tuple[int, int]:
    """The bounds of ``Σ x·w`` for integers ``x`` from ``low`` to ``high``, over all output channels of a weight.

    >>> sum_of_products(0, 3, torch.tensor([[1, -2], [1, 1]]), 0)
    (-6, 6)
    """
    rows = weight.to(torch.int64).movedim(output_axis, 0).flatten(1)
    positive, negative = rows.clamp(min=0).sum(1), rows.clamp(max=0).sum(1)
    return int((low * positive + high * negative).min()), int((high * positive + low * negative).max())
