"""Whether a tensor can be quantized, and whether a scale fits it."""

from __future__ import annotations

from torch import Tensor

from quant_core.errors import InputError
from quant_core.ops.shapes import broadcasts_to
from quant_core.tracing import is_composed


def check_fits(x: Tensor, scale: Tensor, what: str = "scale") -> None:
    """A scale may be broadcast to the tensor, never the tensor to the scale; and the tensor holds floats.

    Args:
        x: the tensor.
        scale: its scale, or its zero-point.
        what: which of both it is, for messages.

    Raises:
        InputError: when it cannot, or does not.

    >>> import torch
    >>> check_fits(torch.zeros(2, 3, 4, 4), torch.ones(1, 3, 1, 1))
    """
    if not x.is_floating_point():
        raise InputError(
            f"a tensor of {x.dtype} cannot be quantized",
            why="quantization rounds real numbers, and the result has the dtype of the tensor",
            fix="Convert it first: x.float(), for images usually x.float() / 255.",
        )
    if not broadcasts_to(scale.shape, x.shape):
        raise InputError(
            f"a {what} of shape {tuple(scale.shape)} does not fit a tensor of shape {tuple(x.shape)}",
            why=f"each axis of the {what} is 1 or the size of the tensor's axis, counted from the last",
            fix="Check which axis holds the channels: (1, C, 1, 1) for images, (1, C) after a linear layer.",
        )


def check_not_empty(x: Tensor) -> None:
    """A statistic needs at least one element.

    Raises:
        InputError: when there is none.
    """
    if not is_composed() and x.numel() == 0:
        raise InputError(
            f"a tensor of shape {tuple(x.shape)} has no statistic",
            why="it holds no element, and the scale is computed from its values",
            fix="Leave empty batches out while statistics are collected.",
        )
