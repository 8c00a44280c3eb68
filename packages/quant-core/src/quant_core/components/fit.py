"""Whether a scale fits a tensor."""

from __future__ import annotations

from torch import Tensor

from quant_core.errors import InputError


def check_fits(x: Tensor, scale: Tensor) -> None:
    """A scale may be broadcast to the tensor, never the tensor to the scale.

    Raises:
        InputError: when it cannot.

    >>> import torch
    >>> check_fits(torch.zeros(2, 3, 4, 4), torch.ones(1, 3, 1, 1))
    """
    sizes = zip(reversed(scale.shape), reversed(x.shape), strict=False)
    if scale.dim() > x.dim() or any(own not in (1, size) for own, size in sizes):
        raise InputError(
            f"a scale of shape {tuple(scale.shape)} does not fit a tensor of shape {tuple(x.shape)}",
            why="each axis of the scale is 1 or the size of the tensor's axis, counted from the last",
            fix="Check which axis holds the channels: (1, C, 1, 1) for images, (1, C) after a linear layer.",
        )
