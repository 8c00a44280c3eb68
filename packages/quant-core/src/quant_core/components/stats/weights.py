"""A statistic over all weights that share a quantizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from quant_core.components.stats.statistic import Grouping
from quant_core.errors import ConfigurationError
from quant_core.running import running_layer


def joined_rows(
    granularity: Grouping, layers: tuple[nn.Module, ...], name: str = "weight"
) -> tuple[Tensor, tuple[int, ...]]:
    """The rows of all weights side by side, ``(R, n₁ + n₂ + …)``, and the shape of a scale for them.

    ``name`` is that of the weight in its layer.

    Raises:
        ConfigurationError: when the weights have different numbers of rows.

    >>> from quant_core.components import PerChannel
    >>> rows, shape = joined_rows(PerChannel(0), (nn.Linear(3, 2), nn.Linear(5, 2)))
    >>> rows.shape, shape
    (torch.Size([2, 8]), (2, 1))
    """
    weights: list[Any] = [getattr(layer, name) for layer in layers]
    rows = [granularity.rows(weight) for weight in weights]
    if len({row.shape[0] for row in rows}) > 1:
        raise ConfigurationError(
            "layers with different numbers of channels cannot share a per-channel weight quantizer",
            where=running_layer(),
            why=f"their weights have the shapes {[tuple(weight.shape) for weight in weights]}",
            fix="Share a per-tensor quantizer, or give each layer its own.",
        )
    return torch.cat(rows, dim=1), granularity.scale_shape(weights[0])
