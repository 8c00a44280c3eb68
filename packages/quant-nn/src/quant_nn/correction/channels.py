"""The channels of a weight: how large each is, and scaling them, in groups or not.

Axis 0 of the weight of a convolution or a linear layer has all output channels, and axis 1 the input channels of one group:
``(O, I / G, …)``. A transposed convolution has it the other way round: ``(I, O / G, …)``.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def ranges(layer: nn.Module, weight: Tensor, *, outputs: bool) -> Tensor:
    """The largest magnitude of each channel: ``(O,)``, or ``(I,)`` of the inputs.

    >>> import torch
    >>> ranges(nn.Conv1d(4, 2, 1, groups=2), torch.tensor([[[1.0], [-2.0]], [[3.0], [4.0]]]), outputs=False)
    tensor([1., 2., 3., 4.])
    """
    found = weight.abs().reshape(*weight.shape[:2], -1).amax(2)
    if _on_axis_0(layer, outputs):
        return found.amax(1)
    return found.reshape(_groups(layer), -1, found.shape[1]).amax(1).flatten()


def along(factor: Tensor, layer: nn.Module, weight: Tensor, *, outputs: bool) -> Tensor:
    """A factor for each channel, in a shape that is broadcast to the weight.

    >>> import torch
    >>> along(torch.tensor([1.0, 2.0, 3.0, 4.0]), nn.Conv1d(4, 2, 1, groups=2), torch.zeros(2, 2, 1), outputs=False).squeeze()
    tensor([[1., 2.],
            [3., 4.]])
    """
    ones = [1] * (weight.dim() - 2)
    if _on_axis_0(layer, outputs):
        return factor.reshape(-1, 1, *ones)
    groups = _groups(layer)
    return factor.reshape(groups, -1).repeat_interleave(weight.shape[0] // groups, 0).reshape(*weight.shape[:2], *ones)


def _on_axis_0(layer: nn.Module, outputs: bool) -> bool:
    return outputs != isinstance(layer, TRANSPOSED)


def _groups(layer: Any) -> int:
    return int(getattr(layer, "groups", 1))
