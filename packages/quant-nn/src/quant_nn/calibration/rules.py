"""Where to cut a histogram off: rules that make a threshold of it."""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import Tensor

from quant_core.errors import ConfigurationError
from quant_core.ops.integer import fake_quantize
from quant_nn.calibration.histogram import Histogram
from quant_nn.calibration.levels import Levels

_CUTS = 256
"""So many cuts are compared at a time."""


def percentile(histogram: Histogram, levels: Levels | None, percentile: float = 99.99) -> Tensor:
    """The upper edge of the bin in which the ``⌈q/100 · n⌉``-th smallest magnitude lies, at most the largest magnitude.

    So at least ``q`` percent of the elements are not clamped, and less than one width of a bin more than they need is kept.

    Args:
        histogram: of magnitudes.
        levels: not read.
        percentile: ``q``, above 0 and at most 100.

    Raises:
        ConfigurationError: when ``q`` is no percentile.

    >>> seen = Histogram(counts=torch.tensor([[98, 1, 0, 1]]), width=torch.tensor([0.5]), largest=torch.tensor([1.75]))
    >>> percentile(seen, None, percentile=99.0)
    tensor([1.])
    """
    check_percentile(percentile)
    cumulative = histogram.counts.cumsum(1)
    share = Fraction(str(percentile)) / 100  # 99.9 as it is written: 99.9 / 100 in floats is a little more
    ranks = [max(math.ceil(share * total), 1) for total in cumulative[:, -1].tolist()]
    return histogram.edge((cumulative < cumulative.new_tensor(ranks).unsqueeze(1)).sum(1) + 1)


def mse(histogram: Histogram, levels: Levels | None) -> Tensor:
    """Of the upper edges of all bins, the threshold with the smallest mean of ``(x − Q(x))²``; of equal ones the smallest.

    Each element is taken as the middle of its bin, and as positive: a histogram of magnitudes knows no signs.

    Args:
        histogram: of magnitudes.
        levels: the integers of ``Q``.

    >>> seen = Histogram(counts=torch.tensor([[9, 9, 0, 1]]), width=torch.tensor([1.0]), largest=torch.tensor([3.5]))
    >>> mse(seen, Levels.of_bits(2, signed=False)), mse(seen, Levels.of_bits(8, signed=False))
    (tensor([2.]), tensor([3.5000]))
    """
    assert levels is not None
    bins = int(histogram.used.max())
    counts = histogram.counts[:, :bins].to(torch.float64)
    places = torch.arange(bins, dtype=torch.float64, device=counts.device)
    errors = counts.new_empty(len(counts), bins)
    for cuts in (places + 1).split(_CUTS):
        columns = slice(int(cuts[0]) - 1, int(cuts[-1]))
        if levels.restrict is None:
            errors[:, columns] = counts @ _squared_errors(places, cuts, levels).t()
            continue
        for row, width in enumerate(histogram.width):
            restricted = levels.restrict(cuts * width) / width
            errors[row, columns] = _squared_errors(places, restricted, levels) @ counts[row]
    errors[places >= histogram.used.unsqueeze(1)] = torch.inf
    return histogram.edge(errors.argmin(1) + 1)


def _squared_errors(places: Tensor, thresholds: Tensor, levels: Levels) -> Tensor:
    """The squared error of each bin's middle at each threshold, ``(T, bins)``, both in widths of a bin."""
    middles = (places + 0.5).unsqueeze(0)
    steps = (thresholds / levels.divisor).unsqueeze(1)
    return (middles - fake_quantize(middles, steps, 0.0, levels.low, levels.high)).square()


def check_percentile(percentile: float) -> None:
    """A percentile lies above 0 and is at most 100.

    Raises:
        ConfigurationError: when it does not.
    """
    number = isinstance(percentile, int | float) and not isinstance(percentile, bool)
    if not number or not 0 < percentile <= 100:
        raise ConfigurationError(
            f"percentile={percentile!r} is not a percentile",
            why="it is the share of elements that are not clamped, above 0 and at most 100",
            fix="Use 99.99, or the method 'max' for all elements.",
        )
