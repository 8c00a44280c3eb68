"""Thresholds from statistics of the activations: over the first steps, or all along."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from quant_core.components.collecting import check_collecting, check_momentum, collect, owner_names
from quant_core.components.fit import check_fits
from quant_core.components.granularity import PerTensor
from quant_core.components.ranks import is_distributed
from quant_core.components.restriction import Restriction
from quant_core.components.scaling.affine import AffineRescaling
from quant_core.components.scaling.base import Scaling
from quant_core.components.stats import AbsPercentile, Statistic
from quant_core.components.step_counter import StepCounter
from quant_core.errors import ConfigurationError


class ParameterFromRuntimeStatsScaling(Scaling):
    """A threshold from statistics of the first training steps, learned from then on.

    While collecting (training mode, first ``collect_stats_steps`` steps) the threshold is the statistic of the current tensor,
    with its gradient, and not restricted; ``average`` follows it: ``average ← (1 − m)·average + m·statistic``, starting from
    the first one. ``value`` is what stands for the average in the domain of the restriction. After that, ``value`` is a
    parameter, with formula and gradient as in :class:`~quant_core.components.ParameterScaling`. In eval mode it is used as it
    stands. Everything is in the ``state_dict``, so that training resumes at any step as if it had not stopped.

    Args:
        scaling_stats_impl: the statistic.
        collect_stats_steps: how many steps to collect; at least 1.
        scaling_stats_momentum: ``m``, the weight of the current step, above 0 and at most 1; ``None`` for the mean of all steps.
        scaling_min_val: the smallest threshold.
        scaling_shape: the shape of the scale.
        restrict_scaling_impl: which numbers the threshold may be.
        module: the layer that it is for, or a tuple of layers; for messages only.

    Raises:
        ConfigurationError: when an option is out of range.
        InputError: when a tensor does not fit, or holds infinities or NaN while statistics are collected.

    >>> from quant_core.components import AbsMax
    >>> scaling = ParameterFromRuntimeStatsScaling(AbsMax(), collect_stats_steps=1)
    >>> scaling(torch.tensor([1.0, -3.0])).item(), scaling(torch.tensor([9.0])).item()
    (3.0, 3.0)
    """

    average: Tensor
    learns = True
    calibratable = True

    def __init__(
        self,
        scaling_stats_impl: Statistic,
        collect_stats_steps: int = 300,
        scaling_stats_momentum: float | None = 0.1,
        scaling_min_val: float | None = None,
        scaling_shape: Sequence[int] = (),
        restrict_scaling_impl: Restriction | None = None,
        module: nn.Module | tuple[nn.Module, ...] | None = None,
    ) -> None:
        super().__init__(scaling_min_val, restrict_scaling_impl)
        check_collecting(collect_stats_steps, "scaling_stats_momentum", scaling_stats_momentum)
        self.scaling_stats_impl = scaling_stats_impl
        self.granularity = scaling_stats_impl.granularity
        self.scaling_stats_momentum = scaling_stats_momentum
        self._where = owner_names(module)
        self.register_buffer("average", torch.ones(tuple(scaling_shape)))
        self.value = nn.Parameter(self.restrict_scaling_impl.parameter_for(self.average).clone())
        self.collected = StepCounter(collect_stats_steps)

    @property
    def reads_input(self) -> bool:
        """Only while collecting."""
        if not self.training:
            return False
        collected = self.collected
        return not collected.over and collected.running

    @property
    def awaits_data(self) -> bool:
        """Before the first step."""
        return int(self.collected.count) == 0

    @property
    def calibrated(self) -> bool:
        """When all steps have been collected."""
        return not self.collected.running

    @torch.no_grad()
    def take_threshold(self, threshold: Tensor) -> None:
        """Take a threshold in place of the average of all steps, and collect no more; it is learned from now on."""
        average = self.at_least(threshold.to(self.average))
        self.average.copy_(average)
        self.value.copy_(self.restrict_scaling_impl.parameter_for(average))
        self.collected.finish()

    def parameter_now(self) -> Tensor | None:
        """The parameter that makes the threshold of the forward that begins; ``None`` where statistics do."""
        if self.training and not self.collected.over:
            self.collected.begin()
            if self.collected.running:
                return None
        return self.value

    def forward(self, x: Tensor) -> Tensor:
        """The statistic of ``x`` while collecting, the learned threshold afterwards."""
        if self.parameter_now() is not None:
            return self._learned()
        check_fits(x, self.value)
        return self.follow(
            self.at_least(_in_shape(self.scaling_stats_impl.of_batch(x), self.value, self.scaling_stats_impl))
        )

    def nth_largest(self, x: Tensor) -> int:
        """Which of the largest ``|x|`` the statistic is, from 1; 0 where it is something else, or that of several processes."""
        statistic = self.scaling_stats_impl
        if type(statistic) is not AbsPercentile or statistic.granularity != PerTensor() or is_distributed():
            return 0
        return statistic.nth_largest(x.numel())

    def follow(self, threshold: Tensor) -> Tensor:
        """Collect the threshold of one step, a statistic that is no smaller than the smallest threshold."""
        return collect(
            threshold,
            self.average,
            self.collected,
            self.scaling_stats_momentum,
            self._learned,
            where=self._where,
            settle=self.restrict_scaling_impl.parameter_for,
            into=self.value,
        )

    def _learned(self) -> Tensor:
        return self.of_parameter(self.value)


class RuntimeStatsScaling(Scaling):
    """A threshold from the statistic of each batch in training, and from their average in eval mode, as batch norm does it.

    In training mode the threshold is that of the current tensor, ``restrict(max(statistic, scaling_min_val))``, with its
    gradient, and ``average`` follows the statistic: ``average ← (1 − m)·average + m·statistic``, starting from the first one.
    In eval mode it is ``restrict(max(average, scaling_min_val))``. With affine coefficients, which are learned, it is
    ``restrict(weight · statistic + bias)``, or of the logarithm of the statistic where the restriction learns logarithms. The
    average and the number of steps are in the ``state_dict``.

    Ioffe and Szegedy, "Batch normalization: accelerating deep network training by reducing internal covariate shift",
    arXiv:1502.03167, algorithm 2.

    Args:
        scaling_stats_impl: the statistic.
        scaling_stats_momentum: ``m``, the weight of the current step, above 0 and at most 1; ``None`` for the mean of all steps.
        scaling_min_val: the smallest threshold.
        scaling_shape: the shape of the scale.
        restrict_scaling_impl: which numbers the threshold may be.
        scaling_affine_rescaling_init: where a learned weight of the statistic starts, for example 1.0.
        scaling_affine_shifting_init: where a learned bias of the statistic starts, for example 0.0.
        module: the layer that it is for, or a tuple of layers; for messages only.

    Raises:
        ConfigurationError: when an option is out of range.
        InputError: when a tensor does not fit, or holds infinities or NaN in training mode.

    >>> from quant_core.components import AbsMax
    >>> scaling = RuntimeStatsScaling(AbsMax(), scaling_stats_momentum=None)
    >>> scaling(torch.tensor([1.0, -3.0])).item(), scaling(torch.tensor([9.0])).item()
    (3.0, 9.0)
    >>> scaling.eval()(torch.tensor([1.0])).item()
    6.0
    """

    average: Tensor
    calibratable = True

    def __init__(
        self,
        scaling_stats_impl: Statistic,
        scaling_stats_momentum: float | None = 0.1,
        scaling_min_val: float | None = None,
        scaling_shape: Sequence[int] = (),
        restrict_scaling_impl: Restriction | None = None,
        scaling_affine_rescaling_init: float | None = None,
        scaling_affine_shifting_init: float | None = None,
        module: nn.Module | tuple[nn.Module, ...] | None = None,
    ) -> None:
        super().__init__(scaling_min_val, restrict_scaling_impl)
        check_momentum("scaling_stats_momentum", scaling_stats_momentum)
        self.scaling_stats_impl = scaling_stats_impl
        self.granularity = scaling_stats_impl.granularity
        self.scaling_stats_momentum = scaling_stats_momentum
        self._where = owner_names(module)
        self.register_buffer("average", torch.ones(tuple(scaling_shape)))
        self.affine_rescaling = AffineRescaling(
            scaling_affine_rescaling_init, scaling_affine_shifting_init, tuple(scaling_shape)
        )
        self.collected = StepCounter(None)

    @property
    def reads_input(self) -> bool:
        """Only in training mode."""
        return self.training

    @property
    def awaits_data(self) -> bool:
        """Before the first step."""
        return int(self.collected.count) == 0

    @torch.no_grad()
    def take_threshold(self, threshold: Tensor) -> None:
        """Take a threshold as the average for eval mode; further steps of training count from it as from a first one."""
        self.average.copy_(threshold.to(self.average))
        self.collected.count.fill_(1)

    def forward(self, x: Tensor) -> Tensor:
        """The threshold from the statistic of ``x`` in training mode, from the average in eval mode."""
        if not self.training:
            return self._threshold(self.average)
        check_fits(x, self.average)
        statistic = _in_shape(self.scaling_stats_impl.of_batch(x), self.average, self.scaling_stats_impl)
        momentum = self.scaling_stats_momentum
        collect(statistic, self.average, self.collected, momentum, lambda: statistic, where=self._where)
        return self._threshold(statistic)

    def _threshold(self, statistic: Tensor) -> Tensor:
        if not self.affine_rescaling.learns:
            return self.of_statistic(statistic)
        return self.of_parameter(self.affine_rescaling(self.parameter_for(statistic)))


def _in_shape(statistic: Tensor, scale: Tensor, impl: nn.Module) -> Tensor:
    """In the shape of the scale, which may have fewer axes, as long as it is broadcast to the same elements."""
    if statistic.numel() != scale.numel():
        raise ConfigurationError(
            f"{type(impl).__name__} does not give a statistic for a scale of shape {tuple(scale.shape)}",
            why=f"it gives {statistic.numel()} for a scale of {scale.numel()} elements",
            fix="Choose a scaling_stats_impl with a granularity, such as AbsMax, or a scaling_shape that fits.",
        )
    return statistic.reshape(scale.shape)
