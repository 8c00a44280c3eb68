"""A threshold that is learned from a given start."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from quant_core.components.restriction import Restriction
from quant_core.components.scaling.base import Scaling
from quant_core.components.scaling.initial import initial_threshold
from quant_core.components.stats import Grouping


class ParameterScaling(Scaling):
    """A learned threshold, ``max(restrict(value), scaling_min_val)``: ``|value|``, ``2^value``, ``2^⌈value⌉`` or ``⌈|value|⌉``.

    Args:
        scaling_init: where learning starts: a positive number, or a tensor of the scale's shape. It is a threshold; ``value``
            is what stands for it in the domain of the restriction.
        scaling_shape: the shape to expand a number to; if left out, the one that ``granularity`` gives to the weight.
        scaling_min_val: the smallest threshold; the gradient passes below it, so that the value can return.
        restrict_scaling_impl: which numbers the threshold may be.
        granularity: which elements of a weight share a scale.
        module: the layer whose weight it is, or a tuple of layers.

    Gradient: that of the restriction, see :mod:`quant_core.components.restriction`.

    Raises:
        ConfigurationError: when it is not positive and finite, or the shape does not fit.

    >>> import torch
    >>> from quant_core.components import PowerOfTwoRestriction
    >>> ParameterScaling(0.1)(torch.ones(3)).item() == torch.tensor(0.1).item()
    True
    >>> learned = ParameterScaling(3.0, restrict_scaling_impl=PowerOfTwoRestriction())
    >>> learned(torch.ones(3)).item(), round(learned.value.item(), 4)
    (4.0, 1.585)
    """

    learns = True

    def __init__(
        self,
        scaling_init: float | Tensor,
        scaling_shape: Sequence[int] | None = None,
        scaling_min_val: float | None = None,
        restrict_scaling_impl: Restriction | None = None,
        granularity: Grouping | None = None,
        module: nn.Module | tuple[nn.Module, ...] | None = None,
    ) -> None:
        super().__init__(scaling_min_val, restrict_scaling_impl)
        self.granularity = granularity
        start = initial_threshold(scaling_init, scaling_shape, granularity, module)
        self.value = nn.Parameter(self.restrict_scaling_impl.parameter_for(start))

    @property
    def reads_input(self) -> bool:
        """Never."""
        return False

    def parameter_now(self) -> Tensor:
        """The parameter that makes the threshold."""
        return self.value

    def forward(self, x: Tensor) -> Tensor:
        """The learned threshold."""
        return self.of_parameter(self.value)
