"""A zero-point from statistics of the first training steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from quant_core.components.collecting import check_collecting, collect, owner_names
from quant_core.components.fit import check_fits
from quant_core.components.stats.statistic import Statistic
from quant_core.components.step_counter import StepCounter
from quant_core.components.zero_point.shifted import ShiftedZeroPoint
from quant_core.ops import ClampGradient


class ParameterFromRuntimeZeroPoint(ShiftedZeroPoint):
    """A zero-point from statistics of the first training steps, learned from then on.

    While collecting (training mode, first ``collect_stats_steps`` steps) the lowest integer stands for the statistic of the
    current tensor, with its gradient, and ``value`` follows it: ``value ← (1 − m)·value + m·statistic``, starting from the
    first one. After that, ``value`` is a parameter. In eval mode it is used as it stands. Everything is in the
    ``state_dict``, so that training resumes at any step as if it had not stopped. Formula and gradient are those of
    :class:`~quant_core.components.ShiftedZeroPoint`.

    Args:
        zero_point_stats_impl: the statistic, for example :class:`~quant_core.components.NegativePercentileOrZero`.
        signed: whether the integers can be negative.
        collect_stats_steps: how many steps to collect; at least 1.
        zero_point_stats_momentum: ``m``, the weight of the current step, above 0 and at most 1; ``None`` for the mean of all
            steps.
        zero_point_shape: the shape of the zero-point, that of the scale.
        narrow_range: leave out one level.
        quantize_zero_point: whether to round and clamp.
        rounding_mode: how to round.
        clamp_gradient: the gradient of clamping.
        module: the layer that it is for, or a tuple of layers; for messages only.

    Raises:
        ConfigurationError: when an option is out of range.
        InputError: when a tensor does not fit, or holds infinities or NaN while statistics are collected.

    >>> from quant_core.components import NegativeMinOrZero
    >>> zero_point = ParameterFromRuntimeZeroPoint(NegativeMinOrZero(), signed=False, collect_stats_steps=1)
    >>> zero_point(torch.tensor([-1.0, 3.0]), torch.tensor(0.125), torch.tensor(8.0))
    tensor(8.)
    >>> zero_point.value.item()
    -1.0
    """

    def __init__(
        self,
        zero_point_stats_impl: Statistic,
        signed: bool,
        collect_stats_steps: int = 300,
        zero_point_stats_momentum: float | None = 0.1,
        zero_point_shape: Sequence[int] = (),
        narrow_range: bool = False,
        quantize_zero_point: bool = True,
        rounding_mode: str = "ROUND",
        clamp_gradient: ClampGradient = "masked",
        module: nn.Module | tuple[nn.Module, ...] | None = None,
    ) -> None:
        super().__init__(signed, narrow_range, quantize_zero_point, rounding_mode, clamp_gradient)
        check_collecting(collect_stats_steps, "zero_point_stats_momentum", zero_point_stats_momentum)
        self.zero_point_stats_impl = zero_point_stats_impl
        self.zero_point_stats_momentum = zero_point_stats_momentum
        self._where = owner_names(module)
        self.value = nn.Parameter(torch.zeros(tuple(zero_point_shape)))
        self.collected = StepCounter(collect_stats_steps)

    @property
    def reads_input(self) -> bool:
        """Only while collecting."""
        return self.training and self.collected.running

    def forward(self, x: Tensor, scale: Tensor, bit_width: Tensor) -> Tensor:
        """From the statistic of ``x`` while collecting, from the learned value afterwards."""
        if self.training:
            self.collected.begin()
        if not self.reads_input:
            return self.from_lowest(self.value, scale, bit_width)
        check_fits(x, self.value)
        # The zero-point may have fewer axes than the statistic, as long as it is broadcast to the same elements.
        statistic = self.zero_point_stats_impl.of_batch_on_grid(x, scale).reshape(self.value.shape)
        momentum = self.zero_point_stats_momentum
        lowest = collect(statistic, self.value, self.collected, momentum, lambda: self.value, where=self._where)
        return self.from_lowest(lowest, scale, bit_width)
