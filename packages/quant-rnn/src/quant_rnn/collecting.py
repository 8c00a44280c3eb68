"""Which quantizers collect statistics in a way that the native steps know, and telling them what was found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from quant_core.components import (
    AbsMax,
    AbsPercentile,
    FloatRestriction,
    IntScaling,
    ParameterFromRuntimeStatsScaling,
    PerTensor,
)
from quant_core.components.ranks import is_distributed
from quant_core.components.stats.kth_value import rank
from quant_core.components.step_counter import recomputing
from quant_core.ops import integer_range
from quant_core.proxies import QuantProxy
from quant_core.tensor import QuantTensor
from quant_rnn.native import steps
from quant_rnn.steady import is_integer, steady


class Collected(NamedTuple):
    """A quantizer at one place of a step.

    Attributes:
        scale: the stored one; 0 where it collects, and where there is no quantizer.
        low: the smallest integer.
        high: the largest one.
        divisor: a threshold divided by it is the scale.
        least: the smallest threshold.
        left: how many calls it goes on collecting; ``None`` where it does not.
    """

    scale: Tensor
    low: float
    high: float
    divisor: float = 1.0
    least: float = 0.0
    left: int | None = None


def collected(quantizer: QuantProxy | None, like: Tensor, elements: int) -> Collected | None:
    """What the native steps need to know of a quantizer that is given so many elements; ``None`` for what they do not know."""
    found = steady(quantizer, like)
    if found is not None:
        return Collected(*found)
    if quantizer is None or not is_collecting(quantizer, elements):
        return None
    quant, scaling = quantizer.tensor_quant, quantizer.tensor_quant.scaling_impl
    bits = float(quant.bit_width_impl.constant)
    low, high = integer_range(bits, signed=quant.signed, narrow_range=quant.narrow_range)
    left = scaling.collected.steps - int(scaling.collected.count)
    return Collected(like.new_zeros(()), low, high, float(quant.int_scaling_impl(bits)), scaling.least, left)


def is_collecting(quantizer: QuantProxy, elements: int) -> bool:
    """Whether its threshold is now the largest magnitude of so many elements, and an average follows it."""
    if not is_integer(quantizer):
        return False
    scaling = quantizer.tensor_quant.scaling_impl
    return (
        type(scaling) is ParameterFromRuntimeStatsScaling
        and scaling.training
        and scaling.collected.running
        and type(quantizer.tensor_quant.int_scaling_impl) is IntScaling
        and type(scaling.restrict_scaling_impl) is FloatRestriction
        and scaling.average.numel() == 1
        and scaling.average.dtype == torch.float32
        and scaling.scaling_stats_momentum is not None
        and _is_largest(scaling.scaling_stats_impl, elements)
        and not is_distributed()
        and not recomputing()
        and not torch.compiler.is_compiling()
    )


def _is_largest(statistic: object, elements: int) -> bool:
    """Whether a statistic of so many elements is their largest magnitude."""
    if type(statistic) is AbsMax:
        return type(statistic.granularity) is PerTensor
    if type(statistic) is not AbsPercentile or type(statistic.granularity) is not PerTensor:
        return False
    return rank(elements, statistic.high_percentile_q, "nearest") == elements


@torch.no_grad()
def follow(quantizer: QuantProxy, statistics: Tensor) -> None:
    """Let the average of a quantizer that collects follow the statistics of its calls, ``(N,)`` in their order."""
    scaling, library = quantizer.tensor_quant.scaling_impl, steps()
    assert library is not None
    average, momentum = scaling.average.clone().contiguous(), scaling.scaling_stats_momentum
    counted = int(scaling.collected.count)
    library.running_average(average, statistics.contiguous(), scaling.least, counted, momentum)
    scaling.average.copy_(average)
    scaling.value.copy_(scaling.restrict_scaling_impl.parameter_for(average))
    scaling.collected.begin()
    scaling.collected.advance(statistics.numel())


def at_scales(quantizer: QuantProxy, x: Tensor, scale: Tensor) -> QuantTensor:
    """What a quantizer that collects has rounded, with the scales that it had."""
    quant = quantizer.tensor_quant
    return QuantTensor(
        x,
        scale,
        torch.zeros_like(scale),
        quant.bit_width_impl(),
        signed=quantizer.signed,
        narrow_range=quantizer.narrow_range,
        training=quantizer.training,
        symmetric=quantizer.symmetric,
        zero_on_grid=quantizer.zero_on_grid,
    )


def distinct(quantizers: Sequence[QuantProxy]) -> dict[QuantProxy, list[int]]:
    """The places of each quantizer, in order."""
    places: dict[QuantProxy, list[int]] = {}
    for place, quantizer in enumerate(quantizers):
        places.setdefault(quantizer, []).append(place)
    return places
