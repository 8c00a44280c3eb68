"""Losses on learned bit widths: what bits cost, and budgets to train towards; and on what overflows an accumulator."""

from quant_nn.cost.budget import Budget, Spent
from quant_nn.cost.excess import AccumulatorExcess
from quant_nn.cost.losses import (
    ActivationBitWidthWeightedBySize,
    QuantLayerOutputBitWidthWeightedByOps,
    WeightBitWidthWeightedBySize,
)

__all__ = [
    "AccumulatorExcess",
    "ActivationBitWidthWeightedBySize",
    "Budget",
    "QuantLayerOutputBitWidthWeightedByOps",
    "Spent",
    "WeightBitWidthWeightedBySize",
]
