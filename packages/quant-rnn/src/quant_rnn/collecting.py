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
from quant_rnn.steady import LearnedScaling, is_integer, is_steady, learned_scales, learned_scaling, stored_scale

_WITHOUT_END = 2**31  # more calls than a sequence has


class Collected(NamedTuple):
    """A quantizer at one place of a step.

    Attributes:
        low: the smallest integer.
        high: the largest one.
        divisor: a threshold divided by it is the scale.
        least: the smallest threshold.
        left: how many calls it goes on collecting; ``None`` where it does not.
        scaling: what its scale is learned by; ``None`` where it collects, and where the scale comes from elsewhere.
        scale: the one from elsewhere.
    """

    low: float
    high: float
    divisor: float = 1.0
    least: float = 0.0
    left: int | None = None
    scaling: LearnedScaling | None = None
    scale: Tensor | None = None


def collected(quantizer: QuantProxy, like: Tensor, elements: int) -> Collected | None:
    """What the native steps need to know of a quantizer that is given so many elements; ``None`` for what they do not know."""
    if not is_integer(quantizer):
        return None
    quant = quantizer.tensor_quant
    scaling, bits = quant.scaling_impl, float(quant.bit_width_impl.constant)
    low, high = integer_range(bits, signed=quant.signed, narrow_range=quant.narrow_range)
    if is_steady(quantizer):
        learned = learned_scaling(quantizer, like)
        if learned is not None:
            return Collected(low, high, float(quant.int_scaling_impl(bits)), learned.least, scaling=learned)
        scale = stored_scale(quantizer, like)
        return None if scale is None else Collected(low, high, scale=scale)
    if not is_collecting(quantizer, elements):
        return None
    left = scaling.collected.left
    return Collected(
        low, high, float(quant.int_scaling_impl(bits)), scaling.least, _WITHOUT_END if left is None else left
    )


def scales_of(calls: Sequence[Collected], like: Tensor) -> Tensor:
    """The scale of each call, ``(calls,)``; 0 where it collects."""
    found: dict[int, Tensor] = {number: call.scale for number, call in enumerate(calls) if call.scale is not None}
    alike: dict[float, list[int]] = {}
    for number, call in enumerate(calls):
        if call.scaling is not None:
            alike.setdefault(call.least, []).append(number)
    for numbers in alike.values():
        scalings = [scaling for number in numbers if (scaling := calls[number].scaling) is not None]
        scales = learned_scales(scalings, [calls[number].divisor for number in numbers])
        if len(numbers) == len(calls):
            return scales
        found.update(zip(numbers, scales.unbind(0), strict=True))
    none = like.new_zeros(())
    return torch.stack([found.get(number, none) for number in range(len(calls))]) if calls else like.new_zeros(0)


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
    """Let the average of a quantizer that collects follow the statistics of its calls, ``(N,)`` in their order.

    Those of a forward that a backward pass computes again are no calls of their own.
    """
    scaling, library = quantizer.tensor_quant.scaling_impl, steps()
    if recomputing():
        scaling.collected.advance(statistics.numel())
        return
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
