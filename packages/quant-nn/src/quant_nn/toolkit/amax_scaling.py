"""A threshold that is given or calibrated, and until then the largest magnitude of each tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from quant_core.components import AbsMax, Granularity, Scaling
from quant_core.components.granularity import PerTensor
from quant_core.components.restriction import Restriction
from quant_core.components.scaling.base import widened
from quant_core.errors import InputError
from quant_nn.calibration.places import threshold_of


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

    Raises:
        InputError: from ``forward``, when a tensor that is to have its own holds infinities or NaN, or does not fit ``amax``.

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

    def take_threshold(self, threshold: Tensor) -> None:
        """Take a threshold that was found in data, times ``scale_amax``; it stays from now on, or is learned."""
        self.take_amax(threshold.to(self.value) * self.factor)

    @torch.no_grad()
    def take_amax(self, amax: Tensor) -> None:
        """Take a threshold as it is; it stays from now on, or is learned."""
        start = self.restrict_scaling_impl.parameter_for(self.at_least(amax.to(self.value)))
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
        _check_finite(found)
        if self.learns and self.training and not torch.compiler.is_exporting():
            self.take_threshold(found.detach())
            return self.of_parameter(self._along(x))
        return self.of_statistic(found * self.factor)

    def _along(self, x: Tensor) -> Tensor:
        """``value`` in a shape that is broadcast to ``x``; it is given as one number for each channel."""
        if self.value.dim() == 0 or x.dim() == 0 or self.value.dim() == x.dim():
            return widened(self.value)
        shape = self.granularity.scale_shape(x)
        if math.prod(shape) != self.value.numel():
            raise InputError(
                f"amax of {self.value.numel()} numbers does not fit a tensor of shape {tuple(x.shape)}",
                why=f"it is one number for each of {math.prod(shape)} channels",
                fix="Check the axis, and how many numbers there are along it.",
            )
        return widened(self.value).reshape(shape)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        stored = state_dict.get(f"{prefix}value")
        if isinstance(stored, Tensor) and stored.shape != self.value.shape and not self.learns:
            self.value = self.value.new_empty(stored.shape)  # how many channels there are is known from data only
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._known = bool(self.known.item())

    def extra_repr(self) -> str:
        """Whether it is known."""
        return "" if self._known else "not calibrated"


def set_amax(scaling: Scaling, amax: Tensor | float, place: str) -> None:
    """Set the threshold of a quantizer as it is given, without a factor.

    Raises:
        InputError: when it is no largest magnitude, or not one for each channel.

    >>> scaling = AmaxScaling(scale_amax=0.5)
    >>> set_amax(scaling, 2.0, "")
    >>> scaling(torch.tensor([9.0]))
    tensor(2.)
    """
    try:
        given = torch.as_tensor(amax, dtype=torch.float64).detach()
    except (TypeError, ValueError, RuntimeError) as failure:
        raise _no_amax(amax, place, f"it is a number or a tensor, and no {type(amax).__name__}") from failure
    if not bool((torch.isfinite(given) & (given >= 0)).all()):
        raise _no_amax(amax, place, "a largest magnitude is finite and not negative")
    if isinstance(scaling, AmaxScaling) and not scaling.learns and scaling.granularity != PerTensor():
        return scaling.take_amax(given)  # how many channels there are is known from a tensor only
    now = threshold_of(scaling)
    if given.numel() != now.numel():
        raise _no_amax(amax, place, f"it is {given.numel()} numbers, and the scale of this quantizer has {now.numel()}")
    take = scaling.take_amax if isinstance(scaling, AmaxScaling) else scaling.take_threshold
    take(given.reshape(now.shape))


def _no_amax(amax: object, place: str, why: str) -> InputError:
    return InputError(f"{amax!r} is no amax", where=place, why=why, fix="Give x.abs().max() of a tensor, for example.")


def _check_finite(largest: Tensor) -> None:
    if torch.compiler.is_compiling() or largest.is_meta or bool(torch.isfinite(largest).all()):
        return
    raise InputError(
        "a tensor that holds infinities or NaN has no largest magnitude",
        why=f"it is {largest[~torch.isfinite(largest)].flatten()[0].item()}, and would make the scale",
        fix="Look for infinities and NaN in the data, and in the weights of the layers before; or give amax.",
    )
