"""What keywords stand for that is computed from the layer and numbers beside them: thresholds to start from, axes, and groups."""

from __future__ import annotations

import math
from typing import Any

from quant_core.components import Granularity, PerChannel, PerGroup, PerTensor
from quant_core.components.granularity import is_per_channel
from quant_core.errors import ConfigurationError
from quant_core.inject import this, value


@value
def largest_magnitude(max_val: float | None = None, min_val: float | None = None) -> float:
    """``max(|min_val|, |max_val|)``: the threshold that both limits of an activation lie within.

    >>> largest_magnitude.function(max_val=6.0, min_val=-3.0)
    6.0
    """
    limits = {"max_val": max_val, "min_val": min_val}
    for name, limit in limits.items():
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int | float)):
            raise ConfigurationError(
                f"{name}={limit!r} is not a number",
                why="it is the limit of the values to quantize, from which the scale starts",
                fix=f"Write, for example, {name}={'6.0' if name == 'max_val' else '-6.0'}.",
            )
    if max_val is not None and min_val is not None and not min_val < max_val:
        raise ConfigurationError(
            f"min_val={min_val!r} does not lie below max_val={max_val!r}",
            why="they are the lower and the upper limit of the values to quantize",
            fix="Swap them, or leave min_val out.",
        )
    return max(abs(float(limit)) for limit in limits.values() if limit is not None)


@value
def output_channel_dim(module: Any) -> int:
    """The axis of a weight that holds the output channels of its layer: 1 in transposed convolutions; 0 unless the layer says so.

    >>> output_channel_dim.function(module=None)
    0
    """
    return int(getattr(first_of(module), "output_channel_dim", 0))


@value
def weight_granularity(scaling_per_output_channel: bool, module: Any) -> Granularity:
    """Per tensor, or per output channel of a layer.

    >>> weight_granularity.function(scaling_per_output_channel=False, module=None)
    PerTensor()
    """
    if not is_per_channel(scaling_per_output_channel):
        return PerTensor()
    return PerChannel(output_channel_dim.function(module))


@value
def he_deviation(module: Any) -> float:
    """``√(2 / fan-in)``: the standard deviation from which ``torch.nn.init.kaiming_normal_`` draws weights (He et al., 2015).

    >>> he_deviation.function(module=__import__("torch").nn.Linear(8, 3))
    0.5
    """
    weight = first_of(module).weight
    return math.sqrt(2.0 * weight.shape[0] / weight.numel())


@value
def groups(group_size: int, module: Any, group_dim: int | None = None) -> PerGroup:
    """Groups of ``group_size`` neighbours along ``group_dim``, by default the input channels of the layer.

    >>> groups.function(group_size=32, module=None, group_dim=1)
    PerGroup(group_size=32, axis=1)
    """
    return PerGroup(group_size, 1 - output_channel_dim.function(module) if group_dim is None else group_dim)


@value
def scaling_shape(granularity: Granularity | None = None, module: Any = None) -> tuple[int, ...]:
    """The shape of the scale of a weight: ``()``, or one number for each channel or group.

    >>> scaling_shape.function()
    ()
    """
    if granularity is None:
        return ()
    return granularity.scale_shape(first_of(module).weight)


def first_of(module: Any) -> Any:
    """The layer that owns a quantizer, or the first of those that share it."""
    return module[0] if isinstance(module, tuple) else module


scaling_const = this.scaling_const
"""The threshold of a weight, by its other name."""
