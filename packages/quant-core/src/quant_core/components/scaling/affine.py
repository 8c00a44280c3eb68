"""Learned coefficients on top of a statistic."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from quant_core.errors import ConfigurationError


class AffineRescaling(nn.Module):
    """``weight · p + bias``, where ``p`` stands for the statistic in the domain of the restriction.

    Args:
        scaling_affine_rescaling_init: where the weight starts; ``None`` for a weight of 1 that is not learned.
        scaling_affine_shifting_init: where the bias starts; ``None`` for none.
        shape: the shape of the scale.

    Gradient: ``p`` to the weight, 1 to the bias, ``weight`` to ``p``.

    Raises:
        ConfigurationError: when a start is no finite number.

    >>> AffineRescaling(2.0, 0.5, ())(torch.tensor(3.0)).item()
    6.5
    """

    affine_weight: nn.Parameter | None
    affine_bias: nn.Parameter | None

    def __init__(
        self,
        scaling_affine_rescaling_init: float | None,
        scaling_affine_shifting_init: float | None,
        shape: Sequence[int],
    ) -> None:
        super().__init__()
        self.affine_weight = _coefficient("scaling_affine_rescaling_init", scaling_affine_rescaling_init, shape)
        self.affine_bias = _coefficient("scaling_affine_shifting_init", scaling_affine_shifting_init, shape)

    @property
    def learns(self) -> bool:
        """Whether there is a coefficient at all."""
        return self.affine_weight is not None or self.affine_bias is not None

    def forward(self, p: Tensor) -> Tensor:
        """``weight · p + bias``; same shape as ``p``."""
        out = p if self.affine_weight is None else p * self.affine_weight
        return out if self.affine_bias is None else out + self.affine_bias


def _coefficient(name: str, init: float | None, shape: Sequence[int]) -> nn.Parameter | None:
    if init is None:
        return None
    if isinstance(init, bool) or not isinstance(init, int | float) or not math.isfinite(init):
        raise ConfigurationError(
            f"{name}={init!r} is not a number to start from",
            why="it is where a learned coefficient of the scale starts",
            fix=f"Use {'1.0' if 'rescaling' in name else '0.0'}, or None for no such coefficient.",
        )
    return nn.Parameter(torch.full(tuple(shape), float(init)))
