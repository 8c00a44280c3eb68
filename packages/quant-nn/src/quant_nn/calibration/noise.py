"""How far the output of a model is from what it is in full precision."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from quant_core.export.eval_mode import in_eval_mode
from quant_core.tensor import QuantTensor
from quant_nn.calibration.batches import Forward
from quant_nn.calibration.observing import passing, quantizers
from quant_nn.layer import value_of


class OutputNoise:
    """Signal and noise, added up over batches.

    >>> noise = OutputNoise()
    >>> noise.add(torch.tensor([10.0]), torch.tensor([9.0]))
    >>> noise.sqnr
    20.0
    """

    def __init__(self) -> None:
        self.signal = self.noise = 0.0

    def add(self, exact: Any, found: Any) -> None:
        """Take one batch into account: what should have come out, and what did."""
        for y, quantized in zip(_floats(exact), _floats(found), strict=True):
            self.signal += float(y.double().square().sum())
            self.noise += float((y.double() - quantized.double()).square().sum())

    @property
    def sqnr(self) -> float:
        """``10 · log10(Σ y² / Σ (y − ŷ)²)`` in decibels."""
        if self.noise == 0:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal > 0 else -math.inf


def output_noise(model: nn.Module, data: Iterable[Any], forward: Forward) -> OutputNoise:
    """That of a model over all of the data, in eval mode."""
    total = OutputNoise()
    with torch.no_grad(), in_eval_mode(model):
        for batch in data:
            with passing(quantizers(model).values()):
                exact = plain(forward(model, batch))
            total.add(exact, plain(forward(model, batch)))
    return total


def plain(out: Any) -> Any:
    """An output of any form, with plain tensors in place of quantized ones."""
    return pytree.tree_map(value_of, out, is_leaf=lambda leaf: isinstance(leaf, QuantTensor))


def _floats(out: Any) -> Iterator[Tensor]:
    leaves = pytree.tree_leaves(out)
    return (leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point())
