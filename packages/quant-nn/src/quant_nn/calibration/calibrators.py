"""Calibrators: what they keep of all the tensors that reach a quantizer, and the threshold that they make of it.

All have one signature: ``collect(x)`` for each tensor, and ``threshold(levels)`` at the end. What they keep is in their
``state_dict``, so that collecting can go on after an interruption, and can be joined with what another process has kept. No
tensor in it is ever written to: collecting puts others in their place, so that a ``state_dict`` stays what it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from quant_core.components import granularity_of
from quant_core.components.fit import check_fits
from quant_core.components.granularity import PerChannel
from quant_core.errors import ConfigurationError, InputError, StateError
from quant_nn.calibration.histogram import SMALLEST_EXPONENT, Histogram, count, exponents, widen
from quant_nn.calibration.levels import Levels

Rule = Callable[..., Tensor]
"""``rule(histogram, levels, **options)`` gives a threshold for each channel, ``(R,)``."""


class Calibrator(nn.Module):
    """Keeps the largest magnitude, and makes it the threshold.

    Args:
        scale_shape: the shape of the scale, which says what shares a threshold: ``()``, or ``(1, C, 1, 1)`` and the like.
        signed: whether magnitudes of negative elements count; otherwise they count as 0, where an unsigned quantizer puts them.

    >>> calibrator = Calibrator((2, 1))
    >>> calibrator.collect(torch.tensor([[1.0, -3.0], [0.5, 0.0]]))
    >>> calibrator.threshold(Levels.of_bits(8, signed=True))
    tensor([[3.0000],
            [0.5000]], dtype=torch.float64)
    """

    largest: Tensor
    elements: Tensor

    def __init__(self, scale_shape: Sequence[int] = (), signed: bool = True) -> None:
        super().__init__()
        self.scale_shape = tuple(scale_shape)
        self.granularity = granularity_of(self.scale_shape)
        self.signed = signed
        channels = 1
        for size in self.scale_shape:
            channels *= size
        self.register_buffer("largest", torch.zeros(channels, dtype=torch.float64))
        self.register_buffer("elements", torch.tensor(0, dtype=torch.int64))

    @property
    def empty(self) -> bool:
        """Whether it has seen nothing."""
        return not bool(self.elements)

    @torch.no_grad()
    def collect(self, x: Tensor) -> None:
        """Take one more tensor into account; it changes nothing when it raises.

        Raises:
            InputError: when the tensor holds infinities or NaN or no floats, has other channels than the scale, or is on another
                device than the ones before.
        """
        if not x.is_floating_point():
            check_fits(x, self.elements)
        if x.numel() == 0:
            return
        if self.largest.device != x.device:
            self._move_to(x.device)
        rows = self.granularity.rows(x.detach())
        if len(rows) != len(self.largest):
            raise self._other_channels(x, len(rows))
        largest = _largest(rows, self.signed)
        if not all(map(math.isfinite, largest.tolist())):
            raise _not_finite(x)
        self._take(rows, torch.maximum(self.largest, largest))
        self.elements = self.elements + x.numel()

    def join(self, other: Calibrator) -> None:
        """Take into account all that another one has seen."""
        self._join(other)
        self.elements = self.elements + other.elements.to(self.elements)

    def threshold(self, levels: Levels | None) -> Tensor:
        """The threshold, in the shape of the scale, float64.

        Args:
            levels: the integers that it is spread over; ``None`` where they are not known, and not needed.

        Raises:
            StateError: when it has seen nothing.
            ConfigurationError: when a rule of one's own gives no threshold.
        """
        if self.empty:
            raise StateError(
                "a calibrator has seen no data",
                why="there is no tensor that a range could be found in",
                fix="Run the model on data while calibrating, so that the quantizer is reached.",
            )
        found = self._threshold(levels)
        if not isinstance(found, Tensor) or found.numel() != len(self.largest):
            raise _no_threshold(
                found, f"it is one number for each of {len(self.largest)} channels, and no {_form(found)}"
            )
        if not bool((torch.isfinite(found) & (found >= 0)).all()):
            raise _no_threshold(found, "it is a largest magnitude, and so finite and not negative")
        return found.reshape(self.scale_shape)

    def _threshold(self, levels: Levels | None) -> Tensor:
        return self.largest

    def _take(self, rows: Tensor, largest: Tensor) -> None:
        """Take rows into account, of which and of all before ``largest`` is the largest."""
        self.largest = largest

    def _join(self, other: Calibrator) -> None:
        self.largest = torch.maximum(self.largest, other.largest.to(self.largest))

    def _move_to(self, device: torch.device) -> None:
        if not self.empty:
            raise InputError(
                f"a tensor on {device} comes after tensors on {self.largest.device}",
                why="a quantizer is calibrated from tensors on one device",
                fix="Put the model and all of the data on one device.",
            )
        self.to(device)

    def _other_channels(self, x: Tensor, found: int) -> InputError:
        axis = self.granularity.axis if isinstance(self.granularity, PerChannel) else None
        return InputError(
            f"a tensor of shape {tuple(x.shape)} does not fit a scale of shape {self.scale_shape}",
            why=f"it has {found} channels along axis {axis}, and the scale {len(self.largest)}",
            fix="Set per_channel_broadcastable_shape of the quantizer to the channels of its tensor.",
        )


class HistogramCalibrator(Calibrator):
    """Keeps a histogram of magnitudes, in which a rule finds the threshold.

    Args:
        scale_shape: as for :class:`Calibrator`.
        signed: as for :class:`Calibrator`.
        bins: how many, a power of two; the range takes up more than half of them.
        rule: how the threshold is found, such as :func:`~quant_nn.calibration.entropy`.
        options: options of the rule.

    Raises:
        ConfigurationError: when ``bins`` is not a power of two.
    """

    counts: Tensor
    exponent: Tensor

    def __init__(
        self,
        scale_shape: Sequence[int] = (),
        signed: bool = True,
        bins: int = 2048,
        rule: Rule | None = None,
        options: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        super().__init__(scale_shape, signed)
        check_bins(bins)
        self.rule, self.options = rule, dict(options)
        channels = len(self.largest)
        self.register_buffer("counts", torch.zeros(channels, bins, dtype=torch.int64))
        self.register_buffer("exponent", torch.full((channels,), SMALLEST_EXPONENT))

    @property
    def histogram(self) -> Histogram:
        """What it has counted."""
        width = torch.ldexp(torch.ones_like(self.largest), self.exponent)
        return Histogram(counts=self.counts, width=width, largest=self.largest)

    def widen_to(self, exponent: Tensor) -> None:
        """Widen the bins to ``2^exponent``, where they are not wider already."""
        wider = torch.maximum(self.exponent, exponent)
        self.counts = widen(self.counts, wider - self.exponent)
        self.exponent = wider

    def _threshold(self, levels: Levels | None) -> Tensor:
        return self.largest if self.rule is None else self.rule(self.histogram, levels, **self.options)

    def _take(self, rows: Tensor, largest: Tensor) -> None:
        bins = self.counts.shape[1]
        if largest.tolist() != self.largest.tolist():
            self.widen_to(exponents(largest, bins))
        self.counts = self.counts + count(rows, self.exponent, bins, signed=self.signed)
        super()._take(rows, largest)

    def _join(self, other: Calibrator) -> None:
        assert isinstance(other, HistogramCalibrator)
        self.widen_to(other.exponent.to(self.exponent))
        self.counts = self.counts + widen(
            other.counts.to(self.counts), self.exponent - other.exponent.to(self.exponent)
        )
        super()._join(other)


def check_bins(bins: int) -> None:
    """A number of bins is a power of two.

    Raises:
        ConfigurationError: when it is not.
    """
    if isinstance(bins, bool) or not isinstance(bins, int) or bins < 2 or bins & (bins - 1):
        raise ConfigurationError(
            f"bins={bins!r} is not a number of bins",
            why="pairs of bins are joined when the range grows, so that their number is a power of two",
            fix="Use 2048, or 4096 for a finer choice.",
        )


def _largest(rows: Tensor, signed: bool) -> Tensor:
    """The largest magnitude of each row, float64; infinite or NaN where an element is."""
    low, high = torch.aminmax(rows) if len(rows) == 1 else (rows.amin(1), rows.amax(1))  # aminmax is slow along an axis
    both = torch.maximum(-low, high) if signed else torch.where(torch.isfinite(low), high.clamp(min=0), low.abs())
    return both.reshape(-1).to(torch.float64)


def _not_finite(x: Tensor) -> InputError:
    bad = x[~torch.isfinite(x)]
    return InputError(
        "a tensor that holds infinities or NaN cannot be calibrated",
        why=f"{bad.numel()} of its {x.numel()} elements are not finite, the first is {bad.flatten()[0].item()}",
        fix="Look for infinities and NaN in the data, and in the weights of the layers before this one.",
    )


def _no_threshold(found: object, why: str) -> ConfigurationError:
    shown = found.flatten()[:4].tolist() if isinstance(found, Tensor) else found
    return ConfigurationError(
        f"{shown!r} is no threshold",
        why=why,
        fix="Let the rule return a tensor of shape (R,), such as 0.9 * histogram.largest.",
    )


def _form(found: object) -> str:
    return f"tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
