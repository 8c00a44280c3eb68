"""The threshold that a user gives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from quant_core.components.stats import Grouping
from quant_core.errors import ConfigurationError


def initial_threshold(
    scaling_init: float | Tensor,
    scaling_shape: Sequence[int] | None = None,
    granularity: Grouping | None = None,
    module: nn.Module | tuple[nn.Module, ...] | None = None,
) -> Tensor:
    """A copy of ``scaling_init`` as a tensor, a number expanded to the shape of the scale.

    Args:
        scaling_init: a positive number, or a tensor of the scale's shape.
        scaling_shape: that shape; if left out, a number gets the shape that ``granularity`` gives to the weight of ``module``.
        granularity: which elements share a scale.
        module: the layer, or the layers that share the quantizer.

    Raises:
        ConfigurationError: when it is not positive and finite, or the shape does not fit.

    >>> from quant_core.components import PerChannel
    >>> initial_threshold(0.5, (1, 2)), initial_threshold(0.5, None, PerChannel(0), nn.Linear(3, 2)).shape
    (tensor([[0.5000, 0.5000]]), torch.Size([2, 1]))
    """
    try:
        init = torch.as_tensor(scaling_init, dtype=torch.get_default_dtype()).detach().clone()
    except (TypeError, ValueError, RuntimeError):  # of texts, None, and lists of lists of different lengths
        init = torch.tensor(0.0, device="cpu")
    if not init.is_meta and not bool(torch.all(torch.isfinite(init) & (init > 0))):
        raise ConfigurationError(
            f"scaling_init={scaling_init!r} is not a scale",
            why="a scale is positive and finite",
            fix="Start from the largest absolute value that you expect.",
        )
    weight = getattr(module[0] if isinstance(module, tuple) else module, "weight", None)
    if scaling_shape is None and init.dim() == 0 and granularity is not None and weight is not None:
        scaling_shape = granularity.scale_shape(weight)
    if scaling_shape is None or init.shape == tuple(scaling_shape):
        return init
    if init.dim() > 0:
        raise ConfigurationError(
            f"scaling_init of shape {tuple(init.shape)} does not fit scaling_shape={tuple(scaling_shape)}",
            why="a tensor must have the shape of the scale",
            fix="Reshape scaling_init, or leave scaling_shape out.",
        )
    return init.expand(tuple(scaling_shape)).clone()
