"""Values that a FINN-ONNX file holds as integers, to be multiplied with a scale later."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, fx


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
