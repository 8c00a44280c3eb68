"""Losses on learned bit widths: what bits cost, and budgets to train towards."""

from quant_nn.cost.budget import Budget, Spent
from quant_nn.cost.losses import (
    ActivationBitWidthWeightedBySize,
    QuantLayerOutputBitWidthWeightedByOps,
    WeightBitWidthWeightedBySize,
)

__all__ = [
    "ActivationBitWidthWeightedBySize",
    "Budget",
    "QuantLayerOutputBitWidthWeightedByOps",
    "Spent",
    "WeightBitWidthWeightedBySize",
]
