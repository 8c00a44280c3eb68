"""Where the threshold comes from: the real number that the largest integer of a quantizer stands for.

A scaling implementation gives the threshold; the quantizer divides it by the largest integer to obtain the scale. All take
the tensor that is being quantized and return a positive tensor broadcastable to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from quant_core.components.fit import check_fits
from quant_core.components.stats import Statistic
from quant_core.components.step_counter import StepCounter
from quant_core.errors import ConfigurationError
from quant_core.ops import abs_binary_sign_grad, clamp_min_ste


class Scaling(nn.Module):
    """Base of all scaling implementations; ``forward(x)`` gives the threshold."""

    @property
    def reads_input(self) -> bool:
        """Whether the next forward looks at the values of ``x``, and not only at parameters."""
        return True

    def forward(self, x: Tensor) -> Tensor:
        """The threshold for ``x``: positive, broadcastable to it."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(x)")


class ConstScaling(Scaling):
    """A threshold that is fixed.

    Args:
        scaling_init: a positive number, or a tensor of the scale's shape.
        scaling_shape: the shape to expand a number to.

    Raises:
        ConfigurationError: when it is not positive and finite, or the shape does not fit.

    >>> ConstScaling(0.1)(torch.ones(3))
    tensor(0.1000)
    """

    value: Tensor

    def __init__(self, scaling_init: float | Tensor, scaling_shape: Sequence[int] | None = None) -> None:
        super().__init__()
        self.register_buffer("value", _initial(scaling_init, scaling_shape))

    @property
    def reads_input(self) -> bool:
        """Never."""
        return False

    def forward(self, x: Tensor) -> Tensor:
        """The fixed threshold."""
        return self.value


class ParameterScaling(Scaling):
    """A learned threshold, ``|max(value, scaling_min_val)|``.

    Args:
        scaling_init: where learning starts: a positive number, or a tensor of the scale's shape.
        scaling_shape: the shape to expand a number to.
        scaling_min_val: the smallest threshold; the gradient passes below it, so that the value can return.

    Raises:
        ConfigurationError: when it is not positive and finite, or the shape does not fit.

    >>> ParameterScaling(0.1)(torch.ones(3))
    tensor(0.1000, grad_fn=<_AbsBinarySignBackward>)
    """

    def __init__(
        self,
        scaling_init: float | Tensor,
        scaling_shape: Sequence[int] | None = None,
        scaling_min_val: float | None = None,
    ) -> None:
        super().__init__()
        self.scaling_min_val = scaling_min_val
        self.value = nn.Parameter(_initial(scaling_init, scaling_shape))

    @property
    def reads_input(self) -> bool:
        """Never."""
        return False

    def forward(self, x: Tensor) -> Tensor:
        """The learned threshold."""
        return abs_binary_sign_grad(_at_least(self.value, self.scaling_min_val))


class StatsFromParameterScaling(Scaling):
    """A statistic of the weight, computed at each step; its gradient flows into the weight.

    Args:
        scaling_stats_impl: the statistic, for example :class:`~quant_core.components.stats.AbsMax`.
        module: the layer whose weight it is, or a tuple of layers that share the quantizer: the statistic is then one over
            all of their weights together.
        scaling_min_val: the smallest threshold, for a weight that is all zero.

    Raises:
        ConfigurationError: when the weights of several layers cannot be joined.
    """

    def __init__(
        self,
        scaling_stats_impl: Statistic,
        module: nn.Module | tuple[nn.Module, ...],
        scaling_min_val: float | None = None,
    ) -> None:
        super().__init__()
        self.scaling_stats_impl = scaling_stats_impl
        self.scaling_min_val = scaling_min_val
        self._sharing = module if isinstance(module, tuple) and len(module) > 1 else ()

    def forward(self, x: Tensor) -> Tensor:
        """The statistic of ``x``, or of all weights that share this quantizer."""
        return _at_least(self._of_all() if self._sharing else self.scaling_stats_impl(x), self.scaling_min_val)

    def _of_all(self) -> Tensor:
        granularity = self.scaling_stats_impl.granularity
        weights: list[Any] = [layer.weight for layer in self._sharing]
        rows = [granularity.rows(weight) for weight in weights]
        if len({row.shape[0] for row in rows}) > 1:
            raise ConfigurationError(
                "layers with different numbers of channels cannot share a per-channel weight quantizer",
                why=f"their weights have the shapes {[tuple(weight.shape) for weight in weights]}",
                fix="Share a per-tensor quantizer, or give each layer its own.",
            )
        statistic: Tensor = self.scaling_stats_impl.of_rows(torch.cat(rows, dim=1))
        return statistic.reshape(granularity.scale_shape(weights[0]))


class ParameterFromRuntimeStatsScaling(Scaling):
    """A threshold from statistics of the first training steps, learned from then on.

    While collecting (training mode, first ``collect_stats_steps`` steps) the threshold is the statistic of the current tensor,
    with its gradient, and ``value`` follows it: ``value ← (1 − m)·value + m·statistic``, starting from the first one. After
    that, ``value`` is a parameter: the threshold is ``|max(value, scaling_min_val)|``. In eval mode ``value`` is used as it
    stands. Everything is in the ``state_dict``, so that training resumes at any step as if it had not stopped.

    Args:
        scaling_stats_impl: the statistic.
        collect_stats_steps: how many steps to collect; at least 1.
        scaling_stats_momentum: ``m``, the weight of the current step, between 0 and 1.
        scaling_min_val: the smallest threshold.
        scaling_shape: the shape of the scale.

    Raises:
        ConfigurationError: when an option is out of range.
    """

    def __init__(
        self,
        scaling_stats_impl: Statistic,
        collect_stats_steps: int = 300,
        scaling_stats_momentum: float = 0.1,
        scaling_min_val: float | None = None,
        scaling_shape: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if isinstance(collect_stats_steps, bool) or not isinstance(collect_stats_steps, int) or collect_stats_steps < 1:
            raise ConfigurationError(
                f"collect_stats_steps={collect_stats_steps!r} is not a number of steps",
                why="a scale that starts from statistics needs at least one step to collect them",
                fix="Use a whole number such as 300, or ParameterScaling with a scaling_init.",
            )
        if not 0 < scaling_stats_momentum <= 1:
            raise ConfigurationError(
                f"scaling_stats_momentum={scaling_stats_momentum!r} is out of range",
                why="the weight of the current step lies above 0 and at most at 1",
                fix="Use a number such as 0.1.",
            )
        self.scaling_stats_impl = scaling_stats_impl
        self.scaling_stats_momentum = scaling_stats_momentum
        self.scaling_min_val = scaling_min_val
        self.value = nn.Parameter(torch.ones(tuple(scaling_shape)))
        self.collected = StepCounter(collect_stats_steps)

    @property
    def reads_input(self) -> bool:
        """Only while collecting."""
        return self.training and self.collected.running

    def forward(self, x: Tensor) -> Tensor:
        """The statistic of ``x`` while collecting, the learned threshold afterwards."""
        if not self.reads_input:
            return self._learned()
        check_fits(x, self.value)
        # The scale may have fewer axes than the statistic, as long as it is broadcast to the same elements.
        statistic = _at_least(self.scaling_stats_impl(x).reshape(self.value.shape), self.scaling_min_val)
        if not torch.compiler.is_compiling():
            self._follow(statistic.detach())
            return statistic
        # A compiled graph cannot leave this branch by itself, so that it looks at the count at each step.
        finished = self.collected.finished()
        threshold = torch.where(finished, self._learned(), statistic)
        self._follow(statistic.detach(), unless=finished)
        return threshold

    def _learned(self) -> Tensor:
        return abs_binary_sign_grad(_at_least(self.value, self.scaling_min_val))

    def _follow(self, statistic: Tensor, unless: Tensor | None = None) -> None:
        """Let the running average follow the statistic, and count the step."""
        with torch.no_grad():
            weight = self.scaling_stats_momentum
            average = self.value * (1 - weight) + statistic * weight
            followed = torch.where(self.collected.count == 0, statistic, average)
            followed = torch.where(torch.isfinite(followed), followed, self.value)  # one bad batch spoils no scale
            self.value.copy_(followed if unless is None else torch.where(unless, self.value, followed))
        self.collected.advance()


def _initial(scaling_init: float | Tensor, scaling_shape: Sequence[int] | None) -> Tensor:
    init = torch.as_tensor(scaling_init, dtype=torch.get_default_dtype()).detach().clone()
    if not bool(torch.all(torch.isfinite(init) & (init > 0))):
        raise ConfigurationError(
            f"scaling_init={scaling_init!r} is not a scale",
            why="a scale is positive and finite",
            fix="Start from the largest absolute value that you expect.",
        )
    if scaling_shape is None or init.shape == tuple(scaling_shape):
        return init
    if init.dim() > 0:
        raise ConfigurationError(
            f"scaling_init of shape {tuple(init.shape)} does not fit scaling_shape={tuple(scaling_shape)}",
            why="a tensor must have the shape of the scale",
            fix="Reshape scaling_init, or leave scaling_shape out.",
        )
    return init.expand(tuple(scaling_shape)).clone()


def _at_least(threshold: Tensor, minimum: float | None) -> Tensor:
    return threshold if minimum is None else clamp_min_ste(threshold, minimum)
