"""The rules against plain loops over the cuts, and the laws that each has."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_core.components import PowerOfTwoRestriction
from quant_core.errors import ConfigurationError
from quant_core.ops.integer import fake_quantize
from quant_nn.calibration import Histogram, HistogramCalibrator, Levels, entropy, mse, percentile
from quant_nn.calibration.relative_entropy import divergences

SEEDS = st.integers(0, 10**6)


def sample(seed: int, n: int = 500, heavy: bool = True) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, generator=generator)
    return x * (1 + 5 * torch.rand(n, generator=generator) ** 8) if heavy else x


def histogram(x: torch.Tensor, bins: int = 256) -> Histogram:
    calibrator = HistogramCalibrator(bins=bins)
    calibrator.collect(x)
    return calibrator.histogram


def divergence(counts: list[float], cut: int, levels: int) -> float:
    """Of one cut, as the paper writes it down."""
    counts = [counts[1], *counts[1:]]
    reference = list(counts[:cut])
    candidate = [0.0] * cut
    for level in range(levels):
        members = range(level * cut // levels, (level + 1) * cut // levels)
        filled = [k for k in members if counts[k] > 0]
        for k in filled:
            candidate[k] = sum(counts[i] for i in members) / len(filled)
        if level == levels - 1 and counts[cut - 1] == 0 and sum(counts[cut:]) > 0:
            for k in (*filled, cut - 1):
                candidate[k] = (sum(counts[i] for i in members) + 1) / (len(filled) + 1)
    reference[-1] += sum(counts[cut:])
    p_sum, q_sum = sum(reference), sum(candidate)
    total = 0.0
    for p, q in zip(reference, candidate, strict=True):
        if p > 0:
            total += p / p_sum * math.log((p / p_sum) / (q / q_sum))
    return total


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.sampled_from([3, 5, 6]), st.booleans())
def test_entropy_is_the_loop_over_the_cuts(seed: int, bits: int, signed: bool) -> None:
    found = histogram(sample(seed), bins=128)
    levels = Levels.of_bits(bits, signed=signed)
    cuts = torch.arange(levels.positive, int(found.used) + 1)
    by_loop = [divergence(found.counts[0].tolist(), cut, levels.positive) for cut in cuts.tolist()]
    at_once = divergences(found.counts[0], cuts, levels.positive)
    assert torch.allclose(at_once, torch.tensor(by_loop, dtype=torch.float64), rtol=1e-9, atol=1e-12)
    chosen = entropy(found, levels)
    edges = [min(cut * found.width.item(), found.largest.item()) for cut in cuts.tolist()]
    place = min(range(len(edges)), key=lambda k: abs(edges[k] - chosen.item()))
    assert by_loop[place] == pytest.approx(min(by_loop), abs=1e-12)


@settings(deadline=None)
@given(SEEDS, st.floats(1.0, 100.0))
def test_percentile_keeps_the_share_and_less_than_one_bin_more(seed: int, q: float) -> None:
    x = sample(seed)
    found = histogram(x)
    threshold = percentile(found, None, percentile=q).item()
    rank = max(math.ceil(Fraction(str(q)) * len(x) / 100), 1)
    exact = x.abs().double().sort().values[rank - 1].item()
    assert exact <= threshold
    assert threshold - exact <= found.width.item()


@pytest.mark.parametrize(("elements", "q", "rank"), [(30_000, 99.9, 29_970), (100, 55, 55), (2000, 99.95, 1999)])
def test_a_percentile_means_what_is_written(elements: int, q: float, rank: int) -> None:
    counts = torch.zeros(1, 4, dtype=torch.int64)
    counts[0, 1], counts[0, 3] = rank, elements - rank  # one bin further for one element more
    seen = Histogram(counts=counts, width=torch.ones(1), largest=torch.tensor([3.5]))
    assert percentile(seen, None, percentile=q).item() == 2.0


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.sampled_from([2, 4, 8]), st.booleans())
def test_mse_is_the_loop_over_the_cuts(seed: int, bits: int, signed: bool) -> None:
    found = histogram(sample(seed), bins=128)
    levels = Levels.of_bits(bits, signed=signed)
    middles = (torch.arange(128, dtype=torch.float64) + 0.5) * found.width
    errors = []
    for cut in range(1, int(found.used) + 1):
        step = cut * found.width / levels.divisor
        rounded = fake_quantize(middles, step, 0.0, levels.low, levels.high)
        errors.append((found.counts[0] * (middles - rounded).square()).sum().item())
    chosen = mse(found, levels).item()
    best = min(range(len(errors)), key=errors.__getitem__) + 1
    assert chosen == pytest.approx(min(best * found.width.item(), found.largest.item()), rel=1e-12)


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_mse_compares_the_thresholds_that_there_are(seed: int) -> None:
    found = histogram(sample(seed), bins=128)
    plain = Levels.of_bits(4, signed=True)
    restriction = PowerOfTwoRestriction()
    powers = Levels(low=plain.low, high=plain.high, divisor=8.0, restrict=restriction.of_threshold)
    chosen = restriction.of_threshold(mse(found, powers))
    x = (torch.arange(128, dtype=torch.float64) + 0.5) * found.width

    def error(threshold: float) -> float:
        rounded = fake_quantize(x, torch.tensor(threshold / 8.0, dtype=torch.float64), 0.0, plain.low, plain.high)
        return (found.counts[0] * (x - rounded).square()).sum().item()

    candidates = [2.0**e for e in range(-6, 7)]
    largest = restriction.of_threshold(found.largest).item()
    assert error(chosen.item()) == pytest.approx(min(error(t) for t in candidates if t <= largest), rel=1e-9)


@settings(deadline=None)
@given(SEEDS, st.sampled_from([entropy, percentile, mse]), st.integers(-20, 20))
def test_thresholds_lie_in_the_data_and_scale_with_it(seed: int, rule: object, exponent: int) -> None:
    x = sample(seed)
    levels = Levels.of_bits(5, signed=True)
    threshold = rule(histogram(x), levels)
    assert 0 < threshold <= x.abs().max()
    assert torch.equal(rule(histogram(x * 2.0**exponent), levels), threshold * 2.0**exponent)


@pytest.mark.parametrize("rule", [entropy, percentile, mse])
def test_rows_are_independent(rule: object) -> None:
    levels = Levels.of_bits(4, signed=False)
    parts = [histogram(sample(seed)) for seed in range(3)]
    together = Histogram(
        counts=torch.cat([p.counts for p in parts]),
        width=torch.cat([p.width for p in parts]),
        largest=torch.cat([p.largest for p in parts]),
    )
    assert torch.equal(rule(together, levels), torch.cat([rule(p, levels) for p in parts]))


@pytest.mark.parametrize("rule", [entropy, percentile, mse])
def test_zeros_and_few_values_have_a_threshold(rule: object) -> None:
    levels = Levels.of_bits(8, signed=True)
    assert rule(histogram(torch.zeros(10)), levels).item() == 0.0
    assert rule(histogram(torch.tensor([0.0, 0.0, 2.0]), bins=2048), levels).item() == 2.0


def test_outliers_are_left_out() -> None:
    torch.manual_seed(0)
    x = torch.cat([torch.randn(100_000), torch.tensor([100.0])])
    levels = Levels.of_bits(8, signed=True)
    found = histogram(x, bins=2048)
    assert entropy(found, levels) < 20
    assert percentile(found, levels) < 5
    assert mse(found, Levels.of_bits(4, signed=True)) < 5


@pytest.mark.parametrize("bad", [0, 101, "99", True, float("nan")])
def test_a_percentile_is_checked(bad: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        percentile(histogram(torch.ones(3)), None, percentile=bad)
    assert str(caught.value) == (
        f"percentile={bad!r} is not a percentile\n"
        "  it is the share of elements that are not clamped, above 0 and at most 100\n"
        "  Use 99.99, or the method 'max' for all elements."
    )
