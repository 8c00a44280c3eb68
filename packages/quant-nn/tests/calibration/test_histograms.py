"""Counting: nothing is lost, and what was counted depends on the elements alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from quant_core.errors import ConfigurationError, InputError, StateError
from quant_nn.calibration import Calibrator, HistogramCalibrator, Levels
from quant_nn.calibration.histogram import exponents

SEEDS = st.integers(0, 10**6)


def tensors(seed: int, count: int, channels: int = 3) -> list[Tensor]:
    """Batches of very different ranges, some of them zeros."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 50, (count,), generator=generator)
    magnitudes = 10.0 ** torch.randint(-3, 4, (count,), generator=generator)
    zero = torch.randint(0, 4, (count,), generator=generator) == 0
    return [
        torch.randn(int(n), channels, generator=generator) * m * (not z)
        for n, m, z in zip(sizes, magnitudes, zero, strict=True)
    ]


def calibrated(batches: list[Tensor], shape: tuple[int, ...], bins: int = 64) -> HistogramCalibrator:
    found = HistogramCalibrator(shape, bins=bins)
    for x in batches:
        found.collect(x)
    return found


def equal(a: HistogramCalibrator, b: HistogramCalibrator) -> bool:
    return all(torch.equal(a.state_dict()[key], b.state_dict()[key]) for key in a.state_dict())


@given(SEEDS, st.sampled_from([(), (1, 3)]))
def test_growth_loses_no_count_and_order_and_batches_do_not_matter(seed: int, shape: tuple[int, ...]) -> None:
    batches = tensors(seed, 6)
    once = calibrated([torch.cat(batches)], shape)
    assert equal(calibrated(batches, shape), once)
    assert equal(calibrated(batches[::-1], shape), once)
    assert once.counts.sum() == sum(x.numel() for x in batches)


@given(SEEDS, st.sampled_from([(), (1, 3)]))
def test_the_counts_are_those_of_a_plain_count(seed: int, shape: tuple[int, ...]) -> None:
    x = torch.cat(tensors(seed, 4))
    found = calibrated([x], shape).histogram
    for row, width, counts in zip(x.t() if shape else x.reshape(1, -1), found.width, found.counts, strict=True):
        bins = [int(v) for v in (row.abs().double() / width).floor().tolist()]
        assert counts.tolist() == [bins.count(k) for k in range(64)]


@given(SEEDS, st.sampled_from([(), (1, 3)]))
def test_two_joined_are_one_that_saw_everything(seed: int, shape: tuple[int, ...]) -> None:
    batches = tensors(seed, 6)
    first, second = calibrated(batches[:2], shape), calibrated(batches[2:], shape)
    first.join(second)
    assert equal(first, calibrated(batches, shape))
    assert first.elements == sum(x.numel() for x in batches)


@given(SEEDS)
def test_a_channel_is_calibrated_as_if_it_were_alone(seed: int) -> None:
    x = torch.cat(tensors(seed, 3))
    together = calibrated([x], (1, 3)).histogram
    for channel in range(3):
        alone = calibrated([x[:, channel]], ()).histogram
        assert torch.equal(together.counts[channel], alone.counts[0])
        assert torch.equal(together.width[channel], alone.width[0])


@given(st.floats(1e-20, 1e30), st.sampled_from([2, 64, 2048]))
def test_the_width_is_the_smallest_that_fits(largest: float, bins: int) -> None:
    width = 2.0 ** exponents(torch.tensor([largest], dtype=torch.float64), bins).item()
    assert largest < bins * width
    assert largest >= bins * width / 2


@settings(max_examples=25)
@given(SEEDS, st.sampled_from([torch.float16, torch.bfloat16, torch.float64]))
def test_other_dtypes_count_as_their_values(seed: int, dtype: torch.dtype) -> None:
    x = torch.randn(200, generator=torch.Generator().manual_seed(seed)).to(dtype)
    assert equal(calibrated([x], ()), calibrated([x.to(torch.float64)], ()))


def test_counts_are_exact_beyond_what_float32_can_count() -> None:
    many = HistogramCalibrator(bins=2)
    many.collect(torch.tensor([0.1, 0.9]))
    many.counts += 2**24
    many.elements += 2**25
    for _ in range(3):
        many.collect(torch.tensor([0.1]))
    assert many.counts.tolist() == [[2**24 + 4, 2**24 + 1]]
    assert many.elements.dtype == many.counts.dtype == torch.int64


def test_negative_elements_of_an_unsigned_quantizer_count_as_zero() -> None:
    x = torch.tensor([-8.0, 0.5, 1.0])
    assert Calibrator(signed=False).largest.item() == 0
    found = HistogramCalibrator(bins=4, signed=False)
    found.collect(x)
    assert found.largest.item() == 1.0
    assert found.counts.tolist() == [[1, 1, 1, 0]]


def test_what_was_kept_goes_through_a_checkpoint() -> None:
    batches = tensors(0, 4)
    first = calibrated(batches[:2], (1, 3))
    resumed = HistogramCalibrator((1, 3), bins=64)
    resumed.load_state_dict(first.state_dict())
    for x in batches[2:]:
        resumed.collect(x)
    assert equal(resumed, calibrated(batches, (1, 3)))


def test_an_empty_tensor_is_no_data() -> None:
    calibrator = Calibrator()
    calibrator.collect(torch.zeros(0))
    with pytest.raises(StateError) as caught:
        calibrator.threshold(Levels.of_bits(8, signed=True))
    assert str(caught.value) == (
        "a calibrator has seen no data\n"
        "  there is no tensor that a range could be found in\n"
        "  Run the model on data while calibrating, so that the quantizer is reached."
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("signed", [True, False])
def test_what_is_not_finite_is_refused_and_nothing_has_changed(bad: float, signed: bool) -> None:
    calibrator = HistogramCalibrator((1, 2), signed=signed, bins=8)
    calibrator.collect(torch.ones(2, 2))
    before = {key: tensor.clone() for key, tensor in calibrator.state_dict().items()}
    with pytest.raises(InputError) as caught:
        calibrator.collect(torch.tensor([[1.0, 100.0], [bad, 1.0]]))
    assert str(caught.value) == (
        "a tensor that holds infinities or NaN cannot be calibrated\n"
        f"  1 of its 4 elements are not finite, the first is {bad}\n"
        "  Look for infinities and NaN in the data, and in the weights of the layers before this one."
    )
    assert all(torch.equal(before[key], tensor) for key, tensor in calibrator.state_dict().items())


def test_channels_must_be_those_of_the_scale() -> None:
    with pytest.raises(InputError) as caught:
        Calibrator((1, 3, 1, 1)).collect(torch.ones(2, 4, 5, 5))
    assert str(caught.value) == (
        "a tensor of shape (2, 4, 5, 5) does not fit a scale of shape (1, 3, 1, 1)\n"
        "  it has 4 channels along axis -3, and the scale 3\n"
        "  Set per_channel_broadcastable_shape of the quantizer to the channels of its tensor."
    )


def test_devices_must_not_be_mixed() -> None:
    calibrator = Calibrator()
    calibrator.collect(torch.ones(2))
    with pytest.raises(InputError) as caught:
        calibrator.collect(torch.ones(2, device="meta"))
    assert str(caught.value) == (
        "a tensor on meta comes after tensors on cpu\n"
        "  a quantizer is calibrated from tensors on one device\n"
        "  Put the model and all of the data on one device."
    )


def test_a_number_of_bins_is_a_power_of_two() -> None:
    with pytest.raises(ConfigurationError) as caught:
        HistogramCalibrator(bins=1000)
    assert str(caught.value) == (
        "bins=1000 is not a number of bins\n"
        "  pairs of bins are joined when the range grows, so that their number is a power of two\n"
        "  Use 2048, or 4096 for a finer choice."
    )
