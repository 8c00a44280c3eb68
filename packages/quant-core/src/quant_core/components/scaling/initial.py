"""The threshold that a user gives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from quant_core.errors import ConfigurationError


def initial_threshold(scaling_init: float | Tensor, scaling_shape: Sequence[int] | None) -> Tensor:
    """A copy of ``scaling_init`` as a tensor, a number expanded to ``scaling_shape``.

    Raises:
        ConfigurationError: when it is not positive and finite, or the shape does not fit.

    >>> initial_threshold(0.5, (1, 2))
    tensor([[0.5000, 0.5000]])
    """
    init = torch.as_tensor(scaling_init, dtype=torch.get_default_dtype()).detach().clone()
    if not init.is_meta and not bool(torch.all(torch.isfinite(init) & (init > 0))):
        raise ConfigurationError(
            f"scaling_init={scaling_init!r} is not a scale",
            why="a scale is positive and finite",
            fix="Start from the largest absolute value that you expect.",
        )
    if scaling_shape is None or init.shape == tuple(scaling_shape):
        return init
    if init.dim() > 0:
        raise ConfigurationError(
            f"scaling_init of shape {tuple(init.shape)} does not fit scaling_shape={tuple(scaling_shape)}",
            why="a tensor must have the shape of the scale",
            fix="Reshape scaling_init, or leave scaling_shape out.",
        )
    return init.expand(tuple(scaling_shape)).clone()
