"""A threshold that is given or calibrated, and until then the largest magnitude of each tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from quant_core.components import AbsMax, Granularity, Scaling
from quant_core.components.granularity import PerTensor
from quant_core.components.restriction import Restriction
from quant_core.components.scaling.base import widened


class AmaxScaling(Scaling):
    """``amax``, once it is known; before, ``max|x|`` of each tensor.

    It becomes known when it is given, by calibration (:meth:`take_threshold`), or, when it is learned, from the first tensor in
    training mode. ``scale_amax`` is a factor of what comes from data.

    Args:
        granularity: which elements share it.
        amax: the threshold, a number or one for each channel; ``None`` leaves it to data.
        learn_amax: whether it is a parameter.
        scale_amax: the factor.
        calib_method: how it is calibrated, where nothing else is said.
        scaling_min_val: the smallest threshold.
        restrict_scaling_impl: which numbers the threshold may be.

    Gradient: to ``amax`` where it is learned; to the largest elements where each tensor has its own.

    >>> scaling = AmaxScaling()
    >>> scaling(torch.tensor([1.0, -3.0])), scaling(torch.tensor([9.0]))
    (tensor(3.), tensor(9.))
    >>> scaling.take_threshold(torch.tensor(2.5))
    >>> scaling(torch.tensor([9.0]))
    tensor(2.5000)
    """

    value: Tensor
    known: Tensor

    def __init__(
        self,
        granularity: Granularity = PerTensor(),  # noqa: B008
        amax: float | Sequence[float] | None = None,
        learn_amax: bool = False,
        scale_amax: float | None = None,
        calib_method: str = "max",
        scaling_min_val: float | None = None,
        restrict_scaling_impl: Restriction | None = None,
    ) -> None:
        super().__init__(scaling_min_val, restrict_scaling_impl)
        self.granularity: Granularity = granularity
        self.largest = AbsMax(granularity)
        self.learns = learn_amax
        self.calibratable = amax is None
        self.calib_method = calib_method
        self.factor = 1.0 if scale_amax is None else scale_amax
        self._known = amax is not None
        given = torch.ones(()) if amax is None else torch.as_tensor(amax, dtype=torch.get_default_dtype()) * self.factor
        start = self.restrict_scaling_impl.parameter_for(self.at_least(given))
        if learn_amax:
            self.value = nn.Parameter(start)
        else:
            self.register_buffer("value", start)
        self.register_buffer("known", torch.tensor(self._known))

    @property
    def reads_input(self) -> bool:
        """Until it is known."""
        return not self._known

    @property
    def awaits_data(self) -> bool:
        """Until it is known."""
        return not self._known

    @torch.no_grad()
    def take_threshold(self, threshold: Tensor) -> None:
        """Take a threshold that was found in data; it stays from now on, or is learned."""
        start = self.restrict_scaling_impl.parameter_for(self.at_least(threshold.to(self.value) * self.factor))
        if self.value.shape != start.shape:
            self.value = nn.Parameter(start) if self.learns else start
        self.value.copy_(start)
        self.known.fill_(True)
        self._known = True

    def forget(self) -> None:
        """Let each tensor have its own again."""
        self.known.fill_(False)
        self._known = False

    def forward(self, x: Tensor) -> Tensor:
        """The threshold for ``x``."""
        if self._known:
            return self.of_parameter(self._along(x))
        found: Tensor = self.largest(x)
        if self.learns and self.training and not torch.compiler.is_compiling():
            self.take_threshold(found.detach())
            return self.of_parameter(self._along(x))
        return self.of_statistic(found * self.factor)

    def _along(self, x: Tensor) -> Tensor:
        """``value`` in a shape that is broadcast to ``x``; it is given as one number for each channel."""
        if self.value.dim() == 0 or x.dim() == 0 or self.value.dim() == x.dim():
            return widened(self.value)
        return widened(self.value).reshape(self.granularity.scale_shape(x))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        stored = state_dict.get(f"{prefix}value")
        if isinstance(stored, Tensor) and stored.shape != self.value.shape and not self.learns:
            self.value = self.value.new_empty(stored.shape)  # how many channels there are is known from data only
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._known = bool(self.known.item())

    def extra_repr(self) -> str:
        """Whether it is known."""
        return "" if self._known else "not calibrated"
