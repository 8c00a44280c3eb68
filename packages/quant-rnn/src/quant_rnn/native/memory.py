"""Where the numbers of a plan are at each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from torch import Tensor

from quant_rnn.native.library import Slot
from quant_rnn.native.plan import FULL, WORK, Place

_ALIGNED: Final = 16
"""Elements of 64 bytes, at a multiple of which torch places a tensor."""


class Buffer(NamedTuple):
    """Memory of several numbers at all steps.

    Attributes:
        tensor: ``(T, …)``, or ``(1, …)`` for what is not kept.
        shift: added to the number of the step, which is the first index.
        mask: the bits of that number which count.
        first: what stands for it before the first step, ``(B, width)``.
        starts: where its blocks start in each step.
    """

    tensor: Tensor
    shift: int = 0
    mask: int = -1
    first: Tensor | None = None
    starts: Sequence[int] = (0,)


class Memory(NamedTuple):
    """All buffers of a run.

    Attributes:
        buffers: by their names.
        batch: how many rows there are.
        slot: how many elements a slot of ``WORK`` has.
        length: how many steps there are.
        start: the step before which there is none.
    """

    buffers: Mapping[str, Buffer]
    batch: int
    slot: int
    length: int
    start: int

    def described(self, place: Place) -> Slot:
        """A number for the compiled library."""
        buffer = self.buffers[place.buffer]
        tensor = buffer.tensor
        if place.buffer == WORK:
            return Slot(_behind(tensor, place.segment * self.slot), None, 0, 0, -1, place.pitch, 0)
        first = None if buffer.first is None else _behind(buffer.first, place.column)
        step = 0 if place.buffer == FULL else tensor.stride(0)
        start = _behind(tensor, self._offset(place))
        return Slot(start, first, step, buffer.shift, buffer.mask, place.pitch, place.pitch)

    def tensors(self, place: Place, width: int) -> list[Tensor]:
        """A number at each step, ``(B, width)``."""
        buffer, length = self.buffers[place.buffer], self.length
        tensor = buffer.tensor
        shape, strides = (tensor.shape[0], self.batch, width), (tensor.stride(0), place.pitch, 1)
        found = tensor.as_strided(shape, strides, tensor.storage_offset() + self._offset(place)).unbind(0)
        if place.buffer == FULL:
            return [found[0]] * length
        if buffer.first is None:
            return list(found) if buffer.mask < 0 else [found[(t + buffer.shift) & buffer.mask] for t in range(length)]
        first = buffer.first[:, place.column : place.column + width]
        return [first if t == self.start else found[t + buffer.shift] for t in range(length)]

    def _offset(self, place: Place) -> int:
        return self.buffers[place.buffer].starts[place.segment] + place.column


def starts_of(widths: Sequence[int], batch: int) -> list[int]:
    """Where blocks of so many columns start, and behind them where the last one ends.

    Products of matrices are rounded otherwise where memory is not aligned.

    >>> starts_of([3, 5], 5)
    [0, 16, 48]
    """
    starts = [0]
    for width in widths:
        starts.append(starts[-1] + (width * batch + _ALIGNED - 1) // _ALIGNED * _ALIGNED)
    return starts


def _behind(tensor: Tensor, elements: int) -> int:
    """The address of an element."""
    return tensor.data_ptr() + elements * tensor.element_size()
