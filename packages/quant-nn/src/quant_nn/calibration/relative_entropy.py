"""TensorRT's rule: the threshold at which the distribution of magnitudes loses least information.

Migacz, "8-bit inference with TensorRT", GPU Technology Conference 2017, pages 36 to 38: for each number ``i`` of bins to keep,

- ``P`` are the first ``i`` bins, the last of which also gets all that is cut off;
- ``Q`` are the first ``i`` bins, joined to as many levels as there are integers, each of which is spread evenly over those of its
  bins that are not empty;
- the divergence is ``Σ P · log(P / Q)``, with both divided by their sum.

Where something is cut off and the last bin is empty that would be infinite, and one element far out would keep everything. There
``Q`` counts one element in that bin, because what is clamped ends up in it.

As a loop over the cuts that takes seconds. Here all cuts are computed at once from three cumulative sums: of the counts ``c``, of
``c · log c``, and of the bins that are not empty. For a level with the sum ``s`` and ``z`` bins that are not empty, ``Q`` is
``s / z`` in each of them, so that ``Σ c · log Q = s · log(s / z)``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from quant_nn.calibration.histogram import Histogram
from quant_nn.calibration.levels import Levels


def entropy(histogram: Histogram, levels: Levels | None) -> Tensor:
    """The upper edge of the last bin to keep, at most the largest magnitude; of equal divergences the largest.

    The first bin counts as the second does: that is where zeros are, which are levels of every grid and tell nothing about the
    range. Where there are fewer bins than levels nothing is gained by cutting, and the threshold is the largest magnitude.

    Args:
        histogram: of magnitudes.
        levels: the integers, of which those that are not negative count: 128 for signed integers of 8 bits.

    >>> seen = Histogram(counts=torch.ones(1, 8, dtype=torch.int64), width=torch.ones(1), largest=torch.tensor([7.5]))
    >>> entropy(seen, Levels.of_bits(3, signed=True))
    tensor([7.5000])
    """
    assert levels is not None
    bins = histogram.counts.shape[1]
    if levels.positive >= bins:
        return histogram.largest
    cuts = torch.arange(levels.positive, bins + 1, device=histogram.counts.device)
    found = torch.full((len(histogram.counts), len(cuts)), torch.inf, dtype=torch.float64, device=cuts.device)
    for row, counts, used in zip(found, histogram.counts, histogram.used.tolist(), strict=True):
        filled = cuts[cuts <= used]
        row[: len(filled)] = divergences(counts, filled, levels.positive)
    last = len(cuts) - 1 - found.flip(1).argmin(1)
    none = torch.isinf(found).all(1)
    return torch.where(none, histogram.largest, histogram.edge(cuts[last]))


def divergences(counts: Tensor, cuts: Tensor, levels: int) -> Tensor:
    """The divergence at each cut, ``(cuts,)``, float64.

    Args:
        counts: ``(bins,)``.
        cuts: how many bins to keep, each at least ``levels``.
        levels: how many levels they are joined to.
    """
    counts = counts.to(torch.float64)
    counts[0] = counts[1]
    total = counts.sum()
    sums, weighted, filled = (_cumulative(x) for x in (counts, torch.xlogy(counts, counts), (counts > 0).to(counts)))
    bounds = cuts.unsqueeze(1) * torch.arange(levels + 1, device=cuts.device) // levels  # (cuts, levels + 1)
    s, z = sums[bounds].diff(dim=1), filled[bounds].diff(dim=1)
    kept = sums[cuts]
    last, cut_off = counts[cuts - 1], total - kept
    landed = ((cut_off > 0) & (last == 0)).to(counts)
    per_bin = s / z.clamp(min=1)
    per_bin[:, -1] = (s[:, -1] + landed) / (z[:, -1] + landed).clamp(min=1)
    p_log_p = weighted[cuts] - torch.xlogy(last, last) + torch.xlogy(last + cut_off, last + cut_off)
    p_log_q = torch.xlogy(s, per_bin).sum(1) + torch.xlogy(cut_off, per_bin[:, -1])
    divergence = (p_log_p - p_log_q) / total - total.log() + (kept + landed).log()
    return divergence.nan_to_num(nan=torch.inf, posinf=torch.inf)  # of bins that are all empty


def _cumulative(x: Tensor) -> Tensor:
    """The sums of the first 0, 1, … elements."""
    return torch.nn.functional.pad(x.cumsum(0), (1, 0))
