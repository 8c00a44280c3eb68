"""Our statistics against Brevitas's, as black boxes: values and gradients, per tensor and per channel."""

from typing import Any

import brevitas.core.stats as theirs
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import quant_core.components as ours

seeds = st.integers(0, 10_000)
REDUCED = 1  # the axis that their statistics reduce, once the channels stand first


def tensor(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def both(seed: int, mine: nn.Module, oracle: nn.Module, x: Tensor, per_channel: bool) -> list[tuple[Tensor, Tensor]]:
    """Values and gradients of both, ours of the tensor ``(C, n, 2)`` and theirs of its rows."""
    results = []
    for statistic, view in ((mine, lambda t: t), (oracle, lambda t: t.flatten(1) if per_channel else t)):
        leaf = x.clone().requires_grad_()
        found = statistic(view(leaf)).flatten()
        found.backward(tensor(seed + 1, *found.shape))
        assert leaf.grad is not None
        results.append((found.detach(), leaf.grad))
    return results


def granularity(per_channel: bool) -> Any:
    return ours.PerChannel(0) if per_channel else ours.PerTensor()


SIMPLE = ["AbsMax", "AbsMinMax", "AbsAve", "SignedAbsMax", "NegativeMinOrZero"]


@settings(max_examples=60, deadline=None)
@given(seeds, st.sampled_from(SIMPLE), st.booleans(), st.integers(1, 40))
def test_statistics_without_options(seed: int, name: str, per_channel: bool, size: int) -> None:
    x = tensor(seed, 3, size, 2)
    rows = x.flatten(1) if per_channel else x.reshape(1, -1)
    assume(name != "AbsMinMax" or bool((rows.amax(1) > 0).all()))  # see docs/differences.md for a range below 0
    mine = getattr(ours, name)(granularity=granularity(per_channel))
    oracle = getattr(theirs, name)(REDUCED if per_channel else None)
    (value, grad), (wanted, wanted_grad) = both(seed, mine, oracle, x, per_channel)
    assert torch.equal(value, wanted)
    assert torch.equal(grad, wanted_grad)


@settings(max_examples=60, deadline=None)
@given(seeds, st.floats(0.5, 4), st.booleans(), st.sampled_from(["MeanSigmaStd", "MeanLearnedSigmaStd"]))
def test_mean_and_deviations(seed: int, sigma: float, per_channel: bool, name: str) -> None:
    x = tensor(seed, 3, 20, 2)
    mine = getattr(ours, name)(sigma, granularity=granularity(per_channel))
    options = {"stats_output_shape": (3,) if per_channel else ()} if "Learned" in name else {}
    oracle = getattr(theirs, name)(sigma, stats_reduce_dim=REDUCED if per_channel else None, **options)
    (value, grad), (wanted, wanted_grad) = both(seed, mine, oracle, x, per_channel)
    torch.testing.assert_close(value, wanted, rtol=1e-6, atol=0)
    torch.testing.assert_close(grad, wanted_grad, rtol=1e-4, atol=1e-7)
    if "Learned" in name:
        torch.testing.assert_close(mine.value.grad.sum(), oracle.value.grad.sum(), rtol=1e-4, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(seeds, st.sampled_from(["L1Norm", "L2Norm", "AbsMaxL2", "AbsMaxAve"]))
def test_norms_and_statistics_of_the_channels(seed: int, name: str) -> None:
    x = tensor(seed, 3, 20, 2)
    options = {"granularity": ours.PerChannel(0)} if "Norm" in name else {"output_channel_dim": 0}
    (value, grad), (wanted, wanted_grad) = both(
        seed, getattr(ours, name)(**options), getattr(theirs, name)(REDUCED), x, per_channel=True
    )
    torch.testing.assert_close(value, wanted, rtol=1e-6, atol=0)
    torch.testing.assert_close(grad, wanted_grad, rtol=1e-5, atol=1e-7)


@settings(max_examples=120, deadline=None)
@given(seeds, st.floats(0.001, 99), st.floats(1, 100), st.booleans(), st.integers(1, 3000))
def test_percentiles_of_both_ends(seed: int, low: float, high: float, per_channel: bool, size: int) -> None:
    """Also where the search goes from the bottom, from the top, and where it is left to torch."""
    assume(low < high)
    assume(0.01 * high * 2 * size * (1 if per_channel else 3) >= 0.5)  # theirs has no element of rank 0
    x = tensor(seed, 3, size, 2)
    reduced = REDUCED if per_channel else None
    grain = granularity(per_channel)
    pairs: list[tuple[nn.Module, nn.Module]] = [
        (ours.AbsPercentile(high, grain), theirs.AbsPercentile(high, reduced)),
        (ours.NegativePercentileOrZero(low, grain), theirs.NegativePercentileOrZero(low, reduced)),
    ]
    rows = x.flatten(1) if per_channel else x.reshape(1, -1)
    top = rows.kthvalue(int(0.01 * high * rows.shape[1] + 0.5), dim=1).values
    if bool((top > 0).all()):  # see docs/differences.md for an interval below 0
        pairs.append((ours.PercentileInterval(low, high, grain), theirs.PercentileInterval(low, high, reduced)))
    for mine, oracle in pairs:
        (value, grad), (wanted, wanted_grad) = both(seed, mine, oracle, x, per_channel)
        assert torch.equal(value, wanted)
        assert torch.equal(grad, wanted_grad)


@pytest.mark.parametrize("per_channel", [False, True])
def test_where_all_is_below_zero_ours_reaches_to_zero_and_theirs_does_not(per_channel: bool) -> None:
    x = -tensor(0, 3, 20, 2).abs() - 2
    mine, oracle = ours.AbsMinMax(granularity(per_channel)), theirs.AbsMinMax(REDUCED if per_channel else None)
    (value, _), (wanted, _) = both(0, mine, oracle, x, per_channel)
    rows = x.flatten(1) if per_channel else x.reshape(1, -1)
    assert torch.equal(value, -rows.amin(1))
    assert torch.equal(wanted, rows.amax(1) - rows.amin(1))
