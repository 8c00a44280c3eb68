"""A statistic of the weight of a layer as it is now, for what is learned and starts from it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quant_core.components.stats import Statistic
from quant_core.components.stats.weights import joined_rows


def statistic_of_weights(statistic: Statistic, module: nn.Module | tuple[nn.Module, ...]) -> Tensor:
    """The statistic of a layer's weight, or of those of all layers that share a quantizer; no gradient.

    Raises:
        ConfigurationError: when the weights of several layers cannot be joined.

    >>> from quant_core.components import AbsMax
    >>> layer = nn.Linear(2, 1, bias=False)
    >>> layer.weight.data = torch.tensor([[0.5, -2.0]])
    >>> statistic_of_weights(AbsMax(), layer)
    tensor(2.)
    """
    with torch.no_grad():
        rows, shape = joined_rows(statistic.granularity, module if isinstance(module, tuple) else (module,))
        return statistic.of_rows(rows).reshape(shape)
