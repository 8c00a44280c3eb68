"""What every statistic is: one number for each group of elements that share a scale."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from quant_core.components.fit import check_not_empty
from quant_core.components.granularity import PerTensor
from quant_core.components.ranks import joins_ranks, of_all_ranks
from quant_core.errors import ConfigurationError, InputError
from quant_core.native import has_values


class Grouping(Protocol):
    """Which elements of a tensor share one number; every granularity is one.

    A statistic along any axis needs no view and no permutation of its own: ``PerChannel(axis)`` puts the axis first.
    """

    def rows(self, x: Tensor) -> Tensor:
        """One row for each group: ``(R, n)``."""

    def scale_shape(self, x: Tensor) -> tuple[int, ...]:
        """The shape of a tensor of ``R`` elements, broadcastable to ``x``."""


class Statistic(nn.Module):
    """Base of all statistics: subclasses define :meth:`of_rows`.

    One that depends on the scale as well, as the search for a zero-point does, sets ``needs_scale`` and defines
    :meth:`of_rows_on_grid` in its place.

    Args:
        granularity: which elements share a scale.
    """

    needs_scale = False

    def __init__(self, granularity: Grouping = PerTensor()) -> None:  # noqa: B008
        super().__init__()
        self.granularity = granularity

    def of_rows(self, rows: Tensor) -> Tensor:
        """One number for each row: ``(R, n)`` → ``(R,)``."""
        missing = "of_rows_on_grid(rows, scale)" if self.needs_scale else "of_rows(rows)"
        raise NotImplementedError(f"{type(self).__name__} must define {missing}")

    def of_rows_on_grid(self, rows: Tensor, scale: Tensor) -> Tensor:
        """The same on the grid of a scale, which has one element or ``R``; most statistics do not depend on it."""
        return self.of_rows(rows)

    def of_rows_of_all_ranks(self, rows: Tensor) -> Tensor:
        """The same for the rows of all processes together; a subclass may send less than whole rows around."""
        return self.of_rows(of_all_ranks(rows))

    def forward(self, x: Tensor) -> Tensor:
        """``x``: float tensor; returns a tensor of the scale's shape.

        Raises:
            InputError: when the tensor is empty, or does not have the axis of the granularity.
            ConfigurationError: when the statistic needs a scale.
        """
        if self.needs_scale:
            raise self._no_scale()
        check_not_empty(x)
        return self.of_rows(self.granularity.rows(x)).reshape(self.granularity.scale_shape(x))

    def of_batch(self, x: Tensor) -> Tensor:
        """As ``forward``, for a batch of which each process of a training run has a part: one number for all parts."""
        if not joins_ranks():
            found: Tensor = self(x)
            return found
        if self.needs_scale:
            raise self._no_scale()
        check_not_empty(x)
        return self.of_rows_of_all_ranks(self.granularity.rows(x)).reshape(self.granularity.scale_shape(x))

    def on_grid(self, x: Tensor, scale: Tensor) -> Tensor:
        """The statistic of ``x`` on the grid of a scale, which has the statistic's shape or one element.

        Raises:
            InputError: as ``forward``.
        """
        if not self.needs_scale:
            found: Tensor = self(x)
            return found
        return self._of_rows_on_grid(x, self.granularity.rows(x), scale)

    def of_batch_on_grid(self, x: Tensor, scale: Tensor) -> Tensor:
        """As :meth:`on_grid`, for a batch of which each process has a part."""
        if not self.needs_scale:
            return self.of_batch(x)
        rows = self.granularity.rows(x)
        return self._of_rows_on_grid(x, of_all_ranks(rows) if joins_ranks() else rows, scale)

    def _of_rows_on_grid(self, x: Tensor, rows: Tensor, scale: Tensor) -> Tensor:
        check_not_empty(x)
        return self.of_rows_on_grid(rows, scale.reshape(-1)).reshape(self.granularity.scale_shape(x))

    def _no_scale(self) -> ConfigurationError:
        return ConfigurationError(
            f"{type(self).__name__} cannot be computed without a scale",
            why="it searches a zero-point on the grid of a scale",
            fix="Use it as zero_point_stats_impl; for a scale there is MSE.",
        )


def check_finite(statistic: Tensor, of: nn.Module | tuple[nn.Module, ...], *, what: str = "weight") -> None:
    """A statistic that a grid is built from must be finite; in a compiled graph, where it is not known, nothing is checked.

    Args:
        statistic: what was computed.
        of: the layer that it was computed for, or the layers.
        what: which tensor of the layer it was computed from.

    Raises:
        InputError: when it holds infinities or NaN.

    >>> check_finite(torch.tensor(float("inf")), nn.Linear(2, 2))
    Traceback (most recent call last):
    ...
    quant_core.errors.InputError: the weight has no finite statistic
      at Linear
      a scale or zero-point would be computed from inf
      Look for infinities and NaN in the weight, for example after a step with too large a learning rate.
    """
    if torch.compiler.is_compiling() or statistic.is_meta or bool(torch.isfinite(statistic).all()):
        return
    layers = of if isinstance(of, tuple) else (of,)
    worst = statistic.detach()[~torch.isfinite(statistic)].flatten()[0].item()
    raise InputError(
        f"the {what} has no finite statistic",
        where=" and ".join(type(layer).__name__ for layer in layers) or None,
        why=f"a scale or zero-point would be computed from {worst}",
        fix=f"Look for infinities and NaN in the {what}, for example after a step with too large a learning rate.",
    )


def check_finite_at_each_step(
    statistic: Tensor, of: nn.Module | tuple[nn.Module, ...], *, what: str = "weight"
) -> None:
    """As :func:`check_finite`, on the CPU only: on other devices the question would wait for the device at each step.

    Raises:
        InputError: when the statistic holds infinities or NaN.
    """
    if torch.compiler.is_compiling() or statistic.device.type != "cpu" or not has_values(statistic):
        return
    if statistic.numel() != 1 or not math.isfinite(statistic.item()):
        check_finite(statistic, of, what=what)
