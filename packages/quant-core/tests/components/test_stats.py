"""Statistics: each against its definition, on tensors of any shape and granularity."""

import copy
import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from quant_core.components import (
    MSE,
    AbsAve,
    AbsMax,
    AbsMaxAve,
    AbsMaxL2,
    AbsMinMax,
    AbsPercentile,
    ConstBitWidth,
    L1Norm,
    L2Norm,
    Mean,
    MeanLearnedSigmaStd,
    MeanSigmaStd,
    MSEZeroPoint,
    NegativeMinOrZero,
    NegativePercentileOrZero,
    PercentileInterval,
    PerChannel,
    PerTensor,
    SignedAbsMax,
    Statistic,
    granularity_of,
)
from quant_core.components.stats import check_finite, joined_rows
from quant_core.errors import ConfigurationError, InputError

OF_EACH_GROUP = {
    "AbsMax": (AbsMax, lambda row: row.abs().max()),
    "AbsMinMax": (AbsMinMax, lambda row: max(row.max(), row.new_zeros(())) - min(row.min(), row.new_zeros(()))),
    "SignedAbsMax": (SignedAbsMax, lambda row: -row[row.abs().argmax()]),
    "NegativeMinOrZero": (NegativeMinOrZero, lambda row: min(row.min(), row.new_zeros(()))),
    "Mean": (Mean, lambda row: row.mean()),
    "AbsAve": (AbsAve, lambda row: row.abs().mean()),
    "L1Norm": (L1Norm, lambda row: row.abs().sum()),
    "L2Norm": (L2Norm, lambda row: row.square().sum().sqrt()),
    "MeanSigmaStd": (lambda grain: MeanSigmaStd(2.0, grain), lambda row: row.abs().mean() + 2 * row.abs().std()),
    "MeanLearnedSigmaStd": (
        lambda grain: MeanLearnedSigmaStd(2.0, grain),
        lambda row: row.abs().mean() + 2 * row.abs().std(),
    ),
    "AbsPercentile": (lambda grain: AbsPercentile(70.0, grain), lambda row: row.abs().kthvalue(49).values),
    "NegativePercentileOrZero": (
        lambda grain: NegativePercentileOrZero(9.0, grain),
        lambda row: row.kthvalue(7).values.clamp(max=0),
    ),
    "PercentileInterval": (
        lambda grain: PercentileInterval(9.0, 90.0, grain),
        lambda row: row.kthvalue(63).values.clamp(min=0) - row.kthvalue(7).values.clamp(max=0),
    ),
}


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.sampled_from(sorted(OF_EACH_GROUP)), st.sampled_from([-2.0, 0.0, 2.0]))
def test_each_is_its_definition_on_each_group(seed: int, name: str, shift: float) -> None:
    """Per tensor on 70 elements, and per channel on 70 of each channel, along any axis."""
    build, definition = OF_EACH_GROUP[name]
    x = torch.randn(2, 5, 7, 3, generator=torch.Generator().manual_seed(seed)) + shift
    found = build(PerChannel(-1))(x)
    assert found.shape == (1, 1, 1, 3)
    wanted = torch.stack([definition(part.flatten()) for part in x.unbind(3)])
    torch.testing.assert_close(found.flatten(), wanted, rtol=1e-5, atol=1e-6)
    whole = build(PerTensor())(x[..., 0])
    assert whole.shape == ()
    torch.testing.assert_close(whole, wanted[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(OF_EACH_GROUP))
def test_gradients_are_those_of_the_definition(name: str) -> None:
    build, definition = OF_EACH_GROUP[name]
    x = torch.randn(10, 7, generator=torch.Generator().manual_seed(3), requires_grad=True)
    build(PerTensor())(x).backward()
    twin = x.detach().clone().requires_grad_()
    definition(twin.flatten()).backward()
    torch.testing.assert_close(x.grad, twin.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(OF_EACH_GROUP))
@pytest.mark.parametrize("x", [torch.zeros(70), torch.full((70,), -3.0), torch.full((70,), 2.0)], ids=["0", "-3", "2"])
def test_constant_tensors_have_finite_statistics_and_gradients(name: str, x: Tensor) -> None:
    leaf = x.clone().requires_grad_()
    found = OF_EACH_GROUP[name][0](PerTensor())(leaf)
    found.backward()
    assert torch.isfinite(found)
    assert torch.isfinite(leaf.grad).all()


@pytest.mark.parametrize("name", sorted(OF_EACH_GROUP))
def test_a_single_element_has_every_statistic(name: str) -> None:
    leaf = torch.tensor([-2.0], requires_grad=True)
    found = OF_EACH_GROUP[name][0](PerTensor())(leaf)
    found.backward()
    assert torch.isfinite(found)
    assert torch.isfinite(leaf.grad).all()


@pytest.mark.parametrize("name", sorted(OF_EACH_GROUP))
def test_they_compile_pickle_and_copy(name: str) -> None:
    torch._dynamo.reset()
    statistic = OF_EACH_GROUP[name][0](PerChannel(0))
    x = torch.randn(3, 70, generator=torch.Generator().manual_seed(0))
    wanted = statistic(x)
    torch.testing.assert_close(torch.compile(statistic, fullgraph=True, backend="aot_eager")(x), wanted)
    for twin in (copy.deepcopy(statistic), pickle.loads(pickle.dumps(statistic))):
        assert torch.equal(twin(x), wanted)


@settings(deadline=None, max_examples=150)
@given(
    st.integers(1, 60_000),
    st.floats(0.01, 100, exclude_min=True),
    st.integers(0, 10_000),
    st.sampled_from([None, 3, 40]),
)
def test_the_percentile_is_the_kth_value(size: int, q: float, seed: int, levels: int | None) -> None:
    x = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    if levels is not None:
        x = (x * levels).round()  # many equal values
    k = max(1, math.floor(0.01 * q * size + 0.5))
    assert AbsPercentile(q)(x) == x.abs().kthvalue(k).values
    low = max(1, math.ceil(0.01 * (100 - q) * size))
    assert NegativePercentileOrZero(100 - q)(x) == x.kthvalue(low).values.clamp(max=0)


@pytest.mark.parametrize("q", [50.0, 99.0, 99.999, 100.0])
def test_the_percentile_per_channel_is_that_of_each_slice(q: float) -> None:
    x = torch.randn(8, 3, 40, 41)
    found = AbsPercentile(q, PerChannel(1))(x)
    assert found.shape == (1, 3, 1, 1)
    assert [found[0, c, 0, 0] for c in range(3)] == [AbsPercentile(q)(x[:, c]) for c in range(3)]


@pytest.mark.parametrize("q", [50.0, 99.999])
def test_the_gradient_of_the_percentile_is_the_sign_at_the_element_found(q: float) -> None:
    x = torch.randn(4, 10_001, requires_grad=True)
    found = AbsPercentile(q)(x)
    found.backward(torch.tensor(2.0))
    place = (x.detach().abs() == found.detach()).nonzero()
    assert len(place) == 1
    expected = torch.zeros_like(x)
    expected[tuple(place[0])] = 2 * x.detach()[tuple(place[0])].sign()
    assert torch.equal(x.grad, expected)


def test_the_percentile_compiles_for_batches_of_any_size() -> None:
    torch._dynamo.reset()
    statistic = PercentileInterval(5.0, 95.0)
    compiled = torch.compile(statistic, fullgraph=True, backend="aot_eager")
    for size in (8, 8, 5, 3, 700):
        x = torch.randn(size, 11, requires_grad=True)
        twin = x.detach().clone().requires_grad_()
        found, wanted = compiled(x), statistic(twin)
        assert torch.equal(found, wanted)
        found.backward()
        wanted.backward()
        assert torch.equal(x.grad, twin.grad)


def test_equal_extremes_share_the_gradient() -> None:
    x = torch.tensor([-3.0, -3.0, 1.0, 1.0], requires_grad=True)
    AbsMinMax()(x).backward()
    assert x.grad.tolist() == [-0.5, -0.5, 0.5, 0.5]


def test_statistics_of_channels_give_one_number() -> None:
    x = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    largest = x.abs().amax((0, 2))
    for statistic, wanted in ((AbsMaxAve(1), largest.mean()), (AbsMaxL2(1), largest.square().mean().sqrt())):
        assert statistic(x).shape == ()
        torch.testing.assert_close(statistic(x), wanted)


def test_a_learned_number_of_deviations_learns_for_each_channel() -> None:
    x = torch.randn(3, 20, generator=torch.Generator().manual_seed(0))
    statistic = MeanLearnedSigmaStd(1.5, PerChannel(0), scaling_shape=(3, 1))
    assert torch.equal(statistic(x), MeanSigmaStd(1.5, PerChannel(0))(x))
    statistic(x).sum().backward()
    torch.testing.assert_close(statistic.value.grad, x.abs().std(1, keepdim=True))


def test_the_shape_of_a_scale_tells_its_granularity() -> None:
    assert granularity_of(()) == PerTensor()
    assert granularity_of((1, 16, 1, 1)) == PerChannel(-3)
    assert granularity_of((16, 1, 1)) == PerChannel(-3)
    assert granularity_of((16,)) == PerChannel(-1)
    assert granularity_of((1, 1, 1, 1)) == PerTensor()


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (3, 1, 1)])
def test_an_axis_counted_from_the_last_is_the_same_in_every_spelling(shape: tuple[int, ...]) -> None:
    x = torch.randn(2, 3, 4, 5)
    assert torch.equal(AbsMax(granularity_of(shape))(x), AbsMax(PerChannel(1))(x))


def test_rows_of_several_weights_stand_side_by_side() -> None:
    one, other = nn.Linear(3, 2), nn.Linear(5, 2)
    rows, shape = joined_rows(PerChannel(0), (one, other))
    assert shape == (2, 1)
    assert torch.equal(rows, torch.cat([one.weight, other.weight], dim=1))


def test_an_empty_tensor_has_no_statistic() -> None:
    for build, _ in OF_EACH_GROUP.values():
        with pytest.raises(InputError) as caught:
            build(PerTensor())(torch.zeros(0, 3))
        assert str(caught.value) == (
            "a tensor of shape (0, 3) has no statistic\n"
            "  it holds no element, and the scale is computed from its values\n"
            "  Leave empty batches out while statistics are collected."
        )


def test_a_scale_with_two_large_axes_is_refused() -> None:
    with pytest.raises(ConfigurationError) as caught:
        granularity_of((4, 16, 1))
    assert str(caught.value) == (
        "a scale of shape (4, 16, 1) is neither per tensor nor per channel\n"
        "  axes [0, 1] are larger than 1, and a per-channel scale has one such axis\n"
        "  Use () per tensor or, for example, (1, channels, 1, 1) per channel."
    )


def test_a_tensor_without_the_axis_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        AbsMax(PerChannel(2))(torch.zeros(3, 4))
    assert str(caught.value) == (
        "a tensor of shape (3, 4) cannot be quantized per channel along axis 2\n"
        "  the tensor has 2 axes\n"
        "  Quantize per tensor, or state a per_channel_broadcastable_shape that fits the tensor."
    )


LOW = "low_percentile_q={} is not a percentile\n  a low percentile lies at 0 or above, and below 100\n"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: AbsPercentile(0.0),
            "high_percentile_q=0.0 is not a percentile\n"
            "  a percentile lies above 0 and at most at 100\n"
            "  Use 99.999 to leave out outliers, or AbsMax for the largest value.",
        ),
        (
            lambda: AbsPercentile(100.5),
            "high_percentile_q=100.5 is not a percentile\n"
            "  a percentile lies above 0 and at most at 100\n"
            "  Use 99.999 to leave out outliers, or AbsMax for the largest value.",
        ),
        (
            lambda: PercentileInterval(1.0, float("nan")),
            "high_percentile_q=nan is not a percentile\n"
            "  a percentile lies above 0 and at most at 100\n"
            "  Use 99.999 to leave out outliers, or AbsMinMax for the whole range.",
        ),
        (
            lambda: NegativePercentileOrZero(-1.0),
            LOW.format(-1.0) + "  Use 0.001 to leave out outliers, or NegativeMinOrZero for the smallest value.",
        ),
        (
            lambda: PercentileInterval(100.0),
            LOW.format(100.0) + "  Use 0.001 to leave out outliers, or NegativeMinOrZero for the smallest value.",
        ),
        (
            lambda: PercentileInterval(60.0, 40.0),
            "low_percentile_q=60.0 is not below high_percentile_q=40.0\n"
            "  the interval goes from the low to the high percentile\n"
            "  Use numbers such as 0.001 and 99.999.",
        ),
        (
            lambda: MeanSigmaStd(-1.0),
            "sigma=-1.0 is not a number of standard deviations\n"
            "  the threshold lies that many deviations above the mean magnitude, at least 0\n"
            "  Use a number such as 3.0.",
        ),
        (
            lambda: MeanLearnedSigmaStd(2.0, std_dev_epsilon=0.0),
            "std_dev_epsilon=0.0 is out of range\n"
            "  it keeps the gradient of the deviation finite, so that it must be positive\n"
            "  Leave it out; 1e-8 is the default.",
        ),
        (
            lambda: MSE(ConstBitWidth(4), signed=True, mse_iters=0),
            "mse_iters=0 is not a number of steps\n"
            "  the search takes a whole number of steps, at least 1\n"
            "  Leave it out for the default.",
        ),
        (
            lambda: MSEZeroPoint(ConstBitWidth(4), signed=False)(torch.ones(3)),
            "MSEZeroPoint cannot be computed without a scale\n"
            "  it searches a zero-point on the grid of a scale\n"
            "  Use it as zero_point_stats_impl; for a scale there is MSE.",
        ),
    ],
)
def test_options_out_of_range_are_refused(build: object, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        build()
    assert str(caught.value) == message


def test_a_statistic_that_is_not_finite_names_the_layers() -> None:
    check_finite(torch.tensor([1.0, 2.0]), nn.Linear(2, 2))
    with pytest.raises(InputError) as caught:
        check_finite(torch.tensor([1.0, float("nan")]), (nn.Linear(2, 2), nn.Conv1d(1, 1, 1)))
    assert str(caught.value) == (
        "the weight has no finite statistic\n"
        "  at Linear and Conv1d\n"
        "  a scale or zero-point would be computed from nan\n"
        "  Look for infinities and NaN in the weight, for example after a step with too large a learning rate."
    )


def test_a_statistic_without_a_definition_says_what_is_missing() -> None:
    with pytest.raises(NotImplementedError, match=r"Statistic must define of_rows\(rows\)"):
        Statistic()(torch.ones(1))
