"""Statistics: each against its definition, on tensors of any shape and granularity."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_core.components import AbsMax, AbsPercentile, PerChannel, PerTensor, granularity_of
from quant_core.errors import ConfigurationError, InputError


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


def test_abs_max_per_channel_is_that_of_each_slice() -> None:
    x = torch.randn(5, 3, 7)
    for axis in range(3):
        found = AbsMax(PerChannel(axis))(x).flatten()
        assert torch.equal(found, torch.stack([part.abs().max() for part in x.unbind(axis)]))


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


def test_an_empty_tensor_has_no_statistic() -> None:
    with pytest.raises(InputError) as caught:
        AbsPercentile()(torch.zeros(0, 3))
    assert str(caught.value) == (
        "a tensor of shape (0, 3) has no statistic\n"
        "  it holds no element, and the scale is computed from its values\n"
        "  Leave empty batches out while statistics are collected."
    )


def test_the_percentile_compiles_for_batches_of_any_size() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(AbsPercentile(), fullgraph=True, backend="aot_eager")
    for size in (8, 8, 5, 3, 700):
        x = torch.randn(size, 11, requires_grad=True)
        twin = x.detach().clone().requires_grad_()
        found, wanted = compiled(x), AbsPercentile()(twin)
        assert torch.equal(found, wanted)
        found.backward()
        wanted.backward()
        assert torch.equal(x.grad, twin.grad)


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


@pytest.mark.parametrize("q", [0.0, 100.5])
def test_a_percentile_out_of_range_is_refused(q: float) -> None:
    with pytest.raises(ConfigurationError) as caught:
        AbsPercentile(q)
    assert str(caught.value) == (
        f"high_percentile_q={q} is not a percentile\n"
        "  a percentile lies above 0 and at most at 100\n"
        "  Use 99.999 to leave out outliers, or AbsMax for the largest value."
    )
