"""Granularity: which elements of a tensor share one scale, and so the shape that the scale has.

=================== =================== ======================
granularity         input shape         shape of the scale
=================== =================== ======================
``PerTensor()``     ``(N, C, H, W)``    ``()``
``PerChannel(1)``   ``(N, C, H, W)``    ``(1, C, 1, 1)``
``PerChannel(0)``   ``(O, I, K, K)``    ``(O, 1, 1, 1)``
``PerGroup(g, 1)``  ``(O, I, K, K)``    ``(O, I / g, K, K)``
=================== =================== ======================

The first two kinds of scale broadcast to their tensor as they are. A scale per group is stored with one element for each group,
and the quantizer repeats it along its axis (:meth:`PerGroup.spread`), so that the scale of a
:class:`~quant_core.tensor.QuantTensor` and of ``quant::int`` always broadcasts: per group it has the size of the tensor along the
axis, and runs of ``g`` equal elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

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


@dataclass(frozen=True, slots=True)
class PerGroup:
    """One scale for each run of ``group_size`` neighbours along ``axis``, at each index of the other axes.

    For the weight of a linear layer, ``(O, I)``, ``PerGroup(32)`` gives each output channel ``I / 32`` scales, as formats with
    blocks do (Rouhani et al., "Microscaling data formats for deep learning", arXiv:2310.10537, section 2).

    Args:
        group_size: how many elements share a scale; it divides the size of the axis.
        axis: the axis of the groups (negative: counted from the last); 1 holds the input channels of a linear layer.

    Raises:
        ConfigurationError: when the size is not a whole number, at least 1.
    """

    group_size: int
    axis: int = 1

    def __post_init__(self) -> None:
        size = self.group_size
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ConfigurationError(
                f"group_size={size!r} is not a number of elements",
                why="that many neighbours share a scale, at least 1",
                fix="Use a divisor of the number of input channels, such as 32.",
            )

    def rows(self, x: Tensor) -> Tensor:
        """One row for each group, in the order of the scale: ``(numel / group_size, group_size)``.

        Raises:
            InputError: when ``x`` has no such axis, or the groups do not divide it.

        >>> PerGroup(2).rows(__import__("torch").arange(8).reshape(2, 4)).tolist()
        [[0, 1], [2, 3], [4, 5], [6, 7]]
        """
        axis = self._in(x)
        groups: Tensor = x.unflatten(axis, (-1, self.group_size))
        return groups.movedim(axis + 1, -1).reshape(-1, self.group_size)

    def scale_shape(self, x: Tensor) -> tuple[int, ...]:
        """The shape of a scale for ``x`` with one element for each group, for example ``(O, I / 32)``."""
        axis = self._in(x)
        return tuple(size // self.group_size if index == axis else size for index, size in enumerate(x.shape))

    def spread(self, scale: Tensor, x: Tensor) -> Tensor:
        """A scale of :meth:`scale_shape`, repeated so that it broadcasts to ``x``; its gradient sums over each group.

        What broadcasts already, such as a single number, is returned as it is.

        >>> import torch
        >>> PerGroup(2).spread(torch.tensor([[1.0, 5.0]]), torch.zeros(3, 4))
        tensor([[1., 1., 5., 5.]])
        """
        axis = self._in(x)
        if scale.dim() < x.dim() or scale.shape[axis] in (1, x.shape[axis]):
            return scale
        return scale.repeat_interleave(self.group_size, dim=axis)

    def _in(self, x: Tensor) -> int:
        axis = self.axis if self.axis >= 0 else x.dim() + self.axis
        if not 0 <= axis < x.dim():
            raise InputError(
                f"a tensor of shape {tuple(x.shape)} cannot be quantized per group along axis {self.axis}",
                why=f"the tensor has {x.dim()} axes",
                fix="Quantize it per tensor or per channel.",
            )
        if x.shape[axis] % self.group_size != 0:
            raise InputError(
                f"a tensor of shape {tuple(x.shape)} cannot be quantized in groups of {self.group_size} along axis {axis}",
                why=f"{x.shape[axis]} is no multiple of {self.group_size}",
                fix="Choose a group_size that divides the number of input channels.",
            )
        return axis


Granularity = PerTensor | PerChannel | PerGroup


def is_per_channel(scaling_per_output_channel: bool) -> bool:
    """Return whether there is a scale for each channel, when that is a yes or no.

    Raises:
        ConfigurationError: when it is something else, such as a word.

    >>> is_per_channel(True)
    True
    """
    if not isinstance(scaling_per_output_channel, bool):
        raise ConfigurationError(
            f"scaling_per_output_channel={scaling_per_output_channel!r} is neither True nor False",
            why="there is one scale for each channel, or one for the tensor",
            fix='Set it to True or False, or use the words scaling_per_output="channel" and "tensor".',
        )
    return scaling_per_output_channel


def granularity_of(scale_shape: Sequence[int]) -> Granularity:
    """The granularity that a scale of this shape has; as it is broadcast, its axes are counted from the last.

    Raises:
        ConfigurationError: when it is no shape, or more than one axis is larger than 1.

    >>> granularity_of(()), granularity_of((1, 16, 1, 1))
    (PerTensor(), PerChannel(axis=-3))
    """
    shape = _checked_shape(scale_shape)
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


def _checked_shape(shape: Sequence[int]) -> tuple[int, ...]:
    sizes: tuple[Any, ...] = tuple(shape) if isinstance(shape, Sequence) else (None,)
    if all(isinstance(size, Integral) and not isinstance(size, bool) and int(size) >= 1 for size in sizes):
        return tuple(int(size) for size in sizes)
    raise ConfigurationError(
        f"{shape!r} is not the shape of a scale",
        why="it has one size for each axis of the tensor, counted from the last: whole numbers, at least 1",
        fix="Use () per tensor or, for example, (1, channels, 1, 1) per channel.",
    )
