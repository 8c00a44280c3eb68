"""Granularity: which elements of a tensor share one scale, and so the shape that the scale has.

================== =================== ==================
granularity        input shape         shape of the scale
================== =================== ==================
``PerTensor()``    ``(N, C, H, W)``    ``()``
``PerChannel(1)``  ``(N, C, H, W)``    ``(1, C, 1, 1)``
``PerChannel(0)``  ``(O, I, K, K)``    ``(O, 1, 1, 1)``
================== =================== ==================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from quant_core.errors import ConfigurationError, InputError


@dataclass(frozen=True, slots=True)
class PerTensor:
    """One scale for all elements; its shape is ``()``."""

    def rows(self, x: Tensor) -> Tensor:
        """All elements as one row: ``(1, numel)``.

        >>> PerTensor().rows(__import__("torch").zeros(2, 3)).shape
        torch.Size([1, 6])
        """
        return x.reshape(1, -1)

    def scale_shape(self, x: Tensor) -> tuple[int, ...]:
        """The shape of a scale for ``x``: ``()``."""
        return ()


@dataclass(frozen=True, slots=True)
class PerChannel:
    """One scale for each index along ``axis`` (negative: counted from the last); its shape is 1 everywhere else."""

    axis: int

    def rows(self, x: Tensor) -> Tensor:
        """One row for each channel: ``(C, numel / C)``.

        Raises:
            InputError: when ``x`` has no such axis.

        >>> PerChannel(1).rows(__import__("torch").zeros(2, 3, 4)).shape
        torch.Size([3, 8])
        """
        axis = self._in(x)
        return x.movedim(axis, 0).reshape(x.shape[axis], -1)

    def scale_shape(self, x: Tensor) -> tuple[int, ...]:
        """The shape of a scale for ``x``, for example ``(1, C, 1, 1)``."""
        axis = self._in(x)
        return tuple(size if index == axis else 1 for index, size in enumerate(x.shape))

    def _in(self, x: Tensor) -> int:
        axis = self.axis if self.axis >= 0 else x.dim() + self.axis
        if not 0 <= axis < x.dim():
            raise InputError(
                f"a tensor of shape {tuple(x.shape)} cannot be quantized per channel along axis {self.axis}",
                why=f"the tensor has {x.dim()} axes",
                fix="Quantize per tensor, or state a per_channel_broadcastable_shape that fits the tensor.",
            )
        return axis


Granularity = PerTensor | PerChannel


def granularity_of(scale_shape: Sequence[int]) -> Granularity:
    """The granularity that a scale of this shape has; as it is broadcast, its axes are counted from the last.

    Raises:
        ConfigurationError: when more than one axis is larger than 1.

    >>> granularity_of(()), granularity_of((1, 16, 1, 1))
    (PerTensor(), PerChannel(axis=-3))
    """
    shape = tuple(scale_shape)
    if all(size == 1 for size in shape):
        return PerTensor()
    axes = [index for index, size in enumerate(shape) if size != 1]
    if len(axes) > 1:
        raise ConfigurationError(
            f"a scale of shape {shape} is neither per tensor nor per channel",
            why=f"axes {axes} are larger than 1, and a per-channel scale has one such axis",
            fix="Use () per tensor or, for example, (1, channels, 1, 1) per channel.",
        )
    return PerChannel(axes[0] - len(shape))
