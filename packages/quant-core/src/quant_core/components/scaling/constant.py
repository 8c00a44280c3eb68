"""A threshold that is fixed."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from quant_core.components.exact import ExactBuffers
from quant_core.components.restriction import Restriction
from quant_core.components.scaling.base import Scaling, widened
from quant_core.components.scaling.initial import initial_threshold
from quant_core.components.stats import Grouping


class ConstScaling(ExactBuffers, Scaling):
    """A threshold that is fixed: ``restrict(max(scaling_init, scaling_min_val))``, a buffer.

    Nothing rounds it: it keeps its dtype where a model is converted to float16, whose range it may exceed, or to bfloat16.

    Args:
        scaling_init: a positive number, or a tensor of the scale's shape.
        scaling_shape: the shape to expand a number to; if left out, the one that ``granularity`` gives to the weight.
        scaling_min_val: the smallest threshold.
        restrict_scaling_impl: which numbers the threshold may be.
        granularity: which elements of a weight share a scale.
        module: the layer whose weight it is, or a tuple of layers.

    Gradient: none.

    Raises:
        ConfigurationError: when it is not positive and finite, or the shape does not fit.

    >>> import torch
    >>> from quant_core.components import PowerOfTwoRestriction
    >>> ConstScaling(0.1)(torch.ones(3)), ConstScaling(0.1, restrict_scaling_impl=PowerOfTwoRestriction())(torch.ones(3))
    (tensor(0.1000), tensor(0.1250))
    """

    value: Tensor
    exact = ("value",)

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
        self.register_buffer(
            "value", self.of_statistic(initial_threshold(scaling_init, scaling_shape, granularity, module))
        )

    @property
    def reads_input(self) -> bool:
        """Never."""
        return False

    def forward(self, x: Tensor) -> Tensor:
        """The fixed threshold."""
        return widened(self.value)
