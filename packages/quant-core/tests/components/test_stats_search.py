"""Searches for the grid with the smallest error: optimal among their candidates, on each group by itself."""

import copy
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from quant_core.components import (
    MSE,
    AbsMinMax,
    AbsPercentile,
    BitWidth,
    ConstBitWidth,
    ConstScaling,
    ConstZeroPoint,
    HalfQuadraticOptimizerScale,
    HalfQuadraticOptimizerZeroPoint,
    IntQuant,
    MSEZeroPoint,
    NegativeMinOrZero,
    ParameterBitWidth,
    PerChannel,
    PerGroup,
    PerTensor,
    PowerOfTwoRestriction,
)
from quant_core.components.stats import GridSearch
from quant_core.errors import ConfigurationError

seeds = st.integers(0, 10_000)


def normal(seed: int, *shape: int, shift: float = 0.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + shift


def error_at(x: Tensor, threshold: float, bits: int, zero_point: float | None = None, **options: Any) -> float:
    """The mean squared error of a quantizer with that threshold and zero-point."""
    point = None if zero_point is None else ConstZeroPoint(zero_point)
    signed = zero_point is None
    value, *_ = IntQuant(ConstScaling(threshold), ConstBitWidth(bits), signed, point, **options)(x)
    return float((value - x).square().mean())


@settings(deadline=None, max_examples=25)
@given(seeds, st.integers(2, 8), st.booleans())
def test_no_other_candidate_has_a_smaller_error(seed: int, bits: int, narrow: bool) -> None:
    x = normal(seed, 80)
    found = MSE(ConstBitWidth(bits), signed=True, narrow_range=narrow)(x)
    others = [float(x.abs().max()) * i / 20 for i in range(1, 21)]
    best = min(error_at(x, other, bits, narrow_range=narrow) for other in others)
    assert error_at(x, float(found), bits, narrow_range=narrow) == pytest.approx(best, rel=1e-4)


@settings(deadline=None, max_examples=25)
@given(seeds, st.integers(2, 8))
def test_no_other_zero_point_has_a_smaller_error(seed: int, bits: int) -> None:
    x = normal(seed, 80)
    threshold = 2.0
    scale = torch.tensor(threshold / (2**bits - 1))
    search = MSEZeroPoint(ConstBitWidth(bits), signed=False)
    found = search.on_grid(x, scale)
    points = [float(torch.clamp(torch.round(-x.min() * i / 20 / scale), 0, 2**bits - 1)) for i in range(1, 21)]
    best = min(error_at(x, threshold, bits, point) for point in points)
    chosen = float(torch.clamp(torch.round(-found / scale), 0, 2**bits - 1))
    assert error_at(x, threshold, bits, chosen) == pytest.approx(best, rel=1e-4)


SEARCHES = {
    "threshold": lambda bits, grain: MSE(bits, signed=True, granularity=grain),
    "threshold with a zero-point": lambda bits, grain: MSE(
        bits, False, mse_init_op=AbsMinMax(grain), mse_zero_point_init_op=NegativeMinOrZero(grain), granularity=grain
    ),
    "power of two": lambda bits, grain: MSE(
        bits, signed=True, restrict_scaling_impl=PowerOfTwoRestriction(), granularity=grain
    ),
    "zero-point": lambda bits, grain: MSEZeroPoint(bits, signed=False, granularity=grain),
}
SCALE = torch.tensor(0.3)


def run(search: GridSearch, x: Tensor) -> Tensor:
    return search.on_grid(x, SCALE)


@settings(deadline=None, max_examples=20)
@given(seeds, st.sampled_from(sorted(SEARCHES)), st.integers(2, 8))
def test_on_groups_it_is_that_of_each_group(seed: int, name: str, bits: int) -> None:
    x = normal(seed, 4, 12)
    build = SEARCHES[name]
    channels = run(build(ConstBitWidth(bits), PerChannel(0)), x)
    groups = run(build(ConstBitWidth(bits), PerGroup(4)), x)
    assert channels.shape == (4, 1)
    assert groups.shape == (4, 3)
    whole = build(ConstBitWidth(bits), PerTensor())
    assert torch.equal(channels.flatten(), torch.stack([run(whole, row) for row in x]))
    assert torch.equal(groups.flatten(), torch.stack([run(whole, part) for part in x.reshape(12, 4)]))


@pytest.mark.parametrize("name", sorted(SEARCHES))
@pytest.mark.parametrize("number", [0.0, 2.0, -2.0, 1e-30, 1e30])
def test_constant_tensors_have_a_finite_result(name: str, number: float) -> None:
    found = run(SEARCHES[name](ConstBitWidth(4), PerTensor()), torch.full((5,), number))
    assert torch.isfinite(found)


@pytest.mark.parametrize("name", sorted(SEARCHES))
def test_a_search_carries_no_gradient_and_no_parameter_of_the_bit_width(name: str) -> None:
    bits: BitWidth = ParameterBitWidth(4)
    search = SEARCHES[name](bits, PerTensor())
    x = normal(0, 50).requires_grad_()
    assert not run(search, x).requires_grad
    assert not list(search.parameters())
    assert list(bits.parameters())


@pytest.mark.parametrize("name", sorted(SEARCHES))
def test_they_compile_pickle_and_copy(name: str) -> None:
    torch._dynamo.reset()
    search = SEARCHES[name](ConstBitWidth(4), PerChannel(0))
    x = normal(0, 3, 40)
    wanted = run(search, x)
    compiled = torch.compile(lambda y: search.on_grid(y, SCALE), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), wanted)
    for twin in (copy.deepcopy(search), pickle.loads(pickle.dumps(search))):
        assert torch.equal(run(twin, x), wanted)


def test_a_power_of_two_is_searched_among_powers_of_two() -> None:
    """Thresholds between two powers of two give the same grid, so that the smallest of the best interval is found."""
    x = torch.cat([torch.linspace(-1, 1, 999), torch.tensor([4.0])])
    restriction = PowerOfTwoRestriction()
    found = restriction.of_threshold(MSE(ConstBitWidth(6), signed=True, restrict_scaling_impl=restriction)(x))
    errors = {power: error_at(x, power, 6, int_scaling_impl=None) for power in (0.5, 1.0, 2.0, 4.0)}
    assert found.item() == min(errors, key=errors.get)


def test_the_largest_candidate_may_be_another_statistic() -> None:
    x = normal(0, 1000)
    largest = AbsPercentile(90.0)
    assert MSE(ConstBitWidth(8), signed=True, mse_init_op=largest)(x) <= largest(x) * 1.0001
    assert MSE(ConstBitWidth(8), signed=True, mse_init_op=largest, mse_iters=1)(x) == largest(x)


@settings(deadline=None, max_examples=25)
@given(seeds, st.integers(2, 6), st.floats(-0.5, 1.5))
def test_half_quadratic_optimization_does_not_raise_the_mean_error(seed: int, bits: int, shift: float) -> None:
    x = normal(seed, 3, 60, shift=shift)
    scale = AbsMinMax()(x) / (2**bits - 1)
    search = HalfQuadraticOptimizerZeroPoint(ConstBitWidth(bits), signed=False)
    start = NegativeMinOrZero()(x)
    errors = [
        float((x - search.quantized(x.reshape(1, -1), scale, lowest.reshape(1)).reshape(x.shape)).abs().mean())
        for lowest in (start, search.on_grid(x, scale))
    ]
    assert errors[1] <= errors[0]


@settings(deadline=None, max_examples=25)
@given(seeds, st.integers(2, 6), st.floats(0.01, 1e5))
def test_half_quadratic_optimization_of_the_scale_does_not_raise_the_mean_error(
    seed: int, bits: int, beta: float
) -> None:
    x = normal(seed, 3, 60)
    search = HalfQuadraticOptimizerScale(ConstBitWidth(bits), signed=True, hqo_beta_scale=beta)
    errors = []
    for threshold in (x.abs().max(), search(x)):
        value, *_ = IntQuant(ConstScaling(threshold), ConstBitWidth(bits), True)(x)
        errors.append(float((value - x).abs().mean()))
    assert errors[1] <= errors[0] * (1 + 1e-6)


@pytest.mark.parametrize("x", [torch.zeros(2, 5), torch.full((2, 5), 2.0), torch.tensor([[0.0] * 5, [1.0] * 5])])
def test_half_quadratic_optimization_of_the_scale_is_finite_and_compiles(x: Tensor) -> None:
    torch._dynamo.reset()
    search = HalfQuadraticOptimizerScale(ConstBitWidth(4), signed=True, granularity=PerChannel(0))
    found = search(x)
    assert bool((torch.isfinite(found) & (found > 0)).all())
    assert torch.equal(torch.compile(search, fullgraph=True, backend="aot_eager")(x), found)


@pytest.mark.parametrize(
    ("options", "name", "range_"),
    [
        ({"hqo_beta_zp": 0.0}, "hqo_beta_zp=0.0", "positive"),
        ({"hqo_kappa_zp": 0.5}, "hqo_kappa_zp=0.5", "at least 1"),
        ({"hqo_lp_norm_zp": 0.0}, "hqo_lp_norm_zp=0.0", "above 0 and at most 1"),
    ],
)
def test_options_of_half_quadratic_optimization_out_of_range(options: dict[str, float], name: str, range_: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        HalfQuadraticOptimizerZeroPoint(ConstBitWidth(4), signed=False, **options)
    assert str(caught.value) == (
        f"{name} is out of range\n  it is {range_}, and finite\n  Leave it out for the default."
    )


def test_a_search_is_no_module_of_the_bit_width_twice() -> None:
    bits = ParameterBitWidth(4)
    both = nn.ModuleList([bits, MSE(bits, signed=True)])
    assert all(key.startswith("0.") for key in both.state_dict())
    twin = copy.deepcopy(both)
    assert twin[1]._bit_width_impl[0] is twin[0]
