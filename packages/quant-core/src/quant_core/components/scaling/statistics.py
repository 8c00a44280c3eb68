"""Thresholds from a statistic of the weight: at each step, or where learning starts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quant_core.components.restriction import Restriction
from quant_core.components.scaling.affine import AffineRescaling
from quant_core.components.scaling.base import Scaling
from quant_core.components.stats import Statistic, check_finite, check_finite_at_each_step, joined_rows


class StatsFromParameterScaling(Scaling):
    """A statistic of the weight, computed at each step; its gradient flows into the weight.

    ``restrict(max(statistic, scaling_min_val))``. With affine coefficients, which are learned,
    ``restrict(weight · statistic + bias)``, or of the logarithm of the statistic where the restriction learns logarithms.

    Args:
        scaling_stats_impl: the statistic, for example :class:`~quant_core.components.AbsMax`.
        module: the layer whose weight it is, or a tuple of layers that share the quantizer: the statistic is then one over
            all of their weights together.
        scaling_min_val: the smallest threshold, for a weight that is all zero.
        restrict_scaling_impl: which numbers the threshold may be.
        scaling_affine_rescaling_init: where a learned weight of the statistic starts, for example 1.0.
        scaling_affine_shifting_init: where a learned bias of the statistic starts, for example 0.0.
        parameter_name: the name of the weight in its layer; ``"bias"`` in quantizers of biases.

    Raises:
        ConfigurationError: when the weights of several layers cannot be joined, or an option is out of range.
        InputError: from ``forward``, when the weight holds infinities or NaN; in eager mode on the CPU.

    >>> from quant_core.components import AbsMax, PowerOfTwoRestriction
    >>> scaling = StatsFromParameterScaling(AbsMax(), nn.Linear(2, 1), restrict_scaling_impl=PowerOfTwoRestriction())
    >>> scaling(torch.tensor([[0.3, -3.0]]))
    tensor(4.)
    """

    def __init__(
        self,
        scaling_stats_impl: Statistic,
        module: nn.Module | tuple[nn.Module, ...],
        scaling_min_val: float | None = None,
        restrict_scaling_impl: Restriction | None = None,
        scaling_affine_rescaling_init: float | None = None,
        scaling_affine_shifting_init: float | None = None,
        parameter_name: str = "weight",
    ) -> None:
        super().__init__(scaling_min_val, restrict_scaling_impl)
        self.scaling_stats_impl = scaling_stats_impl
        self.granularity = scaling_stats_impl.granularity
        self.parameter_name = parameter_name
        self._layers = _layers(module)
        affine = (scaling_affine_rescaling_init, scaling_affine_shifting_init)
        shape = (
            () if affine == (None, None) else _statistic_of(scaling_stats_impl, _layers(module), parameter_name).shape
        )
        self.affine_rescaling = AffineRescaling(*affine, shape)
        self.learns = self.affine_rescaling.learns

    @property
    def is_plain(self) -> bool:
        """Whether it is the statistic of ``x`` alone, without coefficients."""
        return len(self._layers) == 1 and not self.affine_rescaling.learns

    def check(self, statistic: Tensor) -> None:
        """On the CPU a statistic must be finite; on other devices the question would wait for the device at each step.

        Raises:
            InputError: when it is not.
        """
        check_finite_at_each_step(statistic, self._layers, what=self.parameter_name)

    def forward(self, x: Tensor) -> Tensor:
        """The threshold from the statistic of ``x``, or of all weights that share this quantizer."""
        own = self.scaling_stats_impl
        shared = len(self._layers) > 1
        statistic: Tensor = _statistic_of(own, self._layers, self.parameter_name) if shared else own(x)
        self.check(statistic)
        if not self.affine_rescaling.learns:
            return self.of_statistic(statistic)
        return self.of_parameter(self.affine_rescaling(self.parameter_for(statistic)))


class ParameterFromStatsFromParameterScaling(Scaling):
    """A learned threshold that starts from a statistic of the weight.

    It starts there again when a checkpoint replaces the weight and holds no quantizer, or after ``init_tensor_quant()``; a
    checkpoint that does holds what was learned. Formula and gradient are those of
    :class:`~quant_core.components.ParameterScaling`.

    Args:
        scaling_stats_impl: the statistic, for example :class:`~quant_core.components.AbsMax`.
        module: the layer whose weight it is, or a tuple of layers that share the quantizer: the statistic is then one over
            all of their weights together.
        scaling_min_val: the smallest threshold.
        restrict_scaling_impl: which numbers the threshold may be.
        parameter_name: the name of the weight in its layer; ``"bias"`` in quantizers of biases.

    Raises:
        ConfigurationError: when the weights of several layers cannot be joined, or ``scaling_min_val`` is out of range.
        InputError: when the weight holds infinities or NaN.

    >>> from quant_core.components import AbsMax
    >>> layer = nn.Linear(2, 1)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.5, -3.0]]))
    >>> ParameterFromStatsFromParameterScaling(AbsMax(), layer).value.item()
    3.0
    """

    learns = True

    def __init__(
        self,
        scaling_stats_impl: Statistic,
        module: nn.Module | tuple[nn.Module, ...],
        scaling_min_val: float | None = None,
        restrict_scaling_impl: Restriction | None = None,
        parameter_name: str = "weight",
    ) -> None:
        super().__init__(scaling_min_val, restrict_scaling_impl)
        self.granularity = scaling_stats_impl.granularity
        layers = _layers(module)
        with torch.no_grad():
            statistic = _statistic_of(scaling_stats_impl, layers, parameter_name)
            check_finite(statistic, layers, what=parameter_name)
            self.value = nn.Parameter(self.parameter_for(statistic).clone())

    @property
    def reads_input(self) -> bool:
        """Never."""
        return False

    def forward(self, x: Tensor) -> Tensor:
        """The learned threshold."""
        return self.of_parameter(self.value)


def _layers(module: nn.Module | tuple[nn.Module, ...]) -> tuple[nn.Module, ...]:
    return module if isinstance(module, tuple) else (module,)


def _statistic_of(statistic: Statistic, layers: tuple[nn.Module, ...], name: str) -> Tensor:
    rows, shape = joined_rows(statistic.granularity, layers, name)
    found: Tensor = statistic.of_rows(rows)
    return found.reshape(shape)
