"""Where grids go: conditions of the rules, bits that operations need, and what counts as the same grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from quant_core.ops import integer_range
from quant_core.tensor import RULES, GridOrigin, QuantTensor, accumulator_bit_width
from quant_core.tensor.grids import bits


def quantized(
    integers: Tensor, scale: Tensor | float = 0.5, *, width: float = 4.0, zero_point: float = 0.0, **fields: bool
) -> QuantTensor:
    scale = torch.as_tensor(scale)
    options: dict[str, Any] = {"signed": True, "symmetric": zero_point == 0, **fields}
    return QuantTensor(
        (integers.float() - zero_point) * scale, scale, torch.tensor(zero_point), torch.tensor(width), **options
    )


IMAGE = torch.arange(2 * 4 * 6 * 6).reshape(2, 4, 6, 6) % 16 - 8
CHANNELS = torch.tensor([0.5, 0.25, 0.3, 2.0]).reshape(1, 4, 1, 1)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x.view(torch.int32),
        lambda x: x.to(torch.int8),
        lambda x: F.relu(x.replace(zero_on_grid=False)),
        lambda x: F.pad(x.replace(zero_on_grid=False), (1, 1)),
        lambda x: F.avg_pool2d(x.replace(zero_on_grid=False), 2, padding=1),
        lambda x: x.replace(zero_on_grid=False).masked_fill(IMAGE > 0, 0),
        lambda x: F.unfold(x.replace(zero_on_grid=False), 2),
        lambda x: F.pad(x, (1, 1), value=0.5),
        lambda x: torch.constant_pad_nd(x, (1, 1), 0.5),
        lambda x: x.masked_fill(IMAGE > 0, 0.5),
        lambda x: F.dropout(x.replace(zero_on_grid=False)),
        lambda x: torch.dropout(x, 1.0, train=True),
        lambda x: F.alpha_dropout(x, training=True),
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
        lambda x: F.interpolate(x, None, 2, "bicubic"),
        lambda x: torch.cat([x, x.value]),
        lambda x: torch.cat([x, x.half()]),
        lambda x: torch.where(IMAGE > 0, x, 0.0),
        lambda x: torch.max(x),
        lambda x: torch.max(x, 1)[0],
        lambda x: x + x.value,
        lambda x: x.value + x,
        lambda x: x + 1,
        lambda x: 1 - x,
        lambda x: torch.add(x, x, alpha=2),
        lambda x: x.half() + x.half(),
        lambda x: x.bfloat16() * x.bfloat16(),
        lambda x: x.half() @ x.half(),
        lambda x: x.half().sum(1),
        lambda x: F.avg_pool2d(x.half(), 2),
        lambda x: x * -2,
        lambda x: x * 0,
        lambda x: x * float("inf"),
        lambda x: x * True,
        lambda x: x * torch.tensor(2.0),
        lambda x: x / x,
        lambda x: x * x.replace(symmetric=False),
        lambda x: x @ x.replace(symmetric=False),
        lambda x: abs(x.replace(symmetric=False)),
        lambda x: x.sum(1, dtype=torch.float64),
        lambda x: F.avg_pool2d(x, 2, ceil_mode=True),
        lambda x: F.avg_pool2d(x, 2, divisor_override=-3),
        lambda x: F.avg_pool2d(x, 2, padding=1, count_include_pad=False),
        lambda x: F.adaptive_avg_pool2d(x, 4),
        lambda x: torch.fft.fft(x),
        lambda x: torch.linalg.norm(x),
    ],
)
def test_where_the_condition_of_a_rule_is_not_met_the_result_is_a_plain_tensor(call: Callable[[Any], Any]):
    x = quantized(IMAGE)
    assert isinstance(call(x), Tensor)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: F.max_pool3d(x, 2),
        lambda x: x.amax(1),
        lambda x: x.amin(),
        lambda x: x.sum(),
        lambda x: x.mean((1, 2)),
        lambda x: F.pad(x, (0, 0, 0, 0, 1, 1)),
        lambda x: F.avg_pool3d(x, 2),
        lambda x: x @ x,
        lambda x: F.unfold(x, 2),
    ],
)
def test_an_operation_across_channels_of_different_scale_gives_a_plain_tensor(call: Callable[[Any], Any]):
    assert isinstance(call(quantized(IMAGE, CHANNELS)), Tensor)


@pytest.mark.parametrize(
    ("call", "shape"),
    [
        (lambda x: x.permute(0, 2, 3, 1), (1, 1, 1, 4)),
        (lambda x: x[:, 1:3], (1, 2, 1, 1)),
        (lambda x: x[:, 2], (1, 1, 1)),
        (lambda x: x.unsqueeze(0), (1, 1, 4, 1, 1)),
        (lambda x: x[:1].squeeze(), (4, 1, 1)),
        (lambda x: x.expand(3, 2, 4, 6, 6), (1, 1, 4, 1, 1)),
        (lambda x: x.mean((2, 3)), (1, 4)),
        (lambda x: x.amax((2, 3), keepdim=True), (1, 4, 1, 1)),
        (lambda x: F.avg_pool2d(x, 2), (1, 4, 1, 1)),
        (lambda x: F.pad(x, (1, 1)), (1, 4, 1, 1)),
        (lambda x: x.unflatten(1, (2, 2)), (1, 2, 2, 1, 1)),
    ],
)
def test_a_per_channel_scale_stays_as_small_as_it_can(call: Callable[[Any], Any], shape: tuple[int, ...]):
    result = call(quantized(IMAGE, CHANNELS))
    assert tuple(result.scale.shape) == shape
    assert result.is_valid


def test_per_channel_is_per_tensor_on_each_channel():
    whole = quantized(IMAGE, CHANNELS)
    for call in (lambda x: F.max_pool2d(x, 2), lambda x: x + x, lambda x: x * x, lambda x: x.mean((2, 3)), F.relu):
        result = call(whole)
        for channel in range(4):
            alone = call(quantized(IMAGE[:, channel : channel + 1], CHANNELS[0, channel]))
            part = result[:, channel : channel + 1]
            assert torch.equal(part.value, alone.value)
            assert torch.equal(part.int().long(), alone.int().long())
            assert torch.equal(part.bit_width, alone.bit_width)


def test_elements_of_a_flat_tensor_bring_their_own_scale():
    x = QuantTensor(torch.ones(2, 3), torch.tensor([0.5, 1.0, 0.25]), torch.zeros(3), torch.tensor(4.0), signed=True)
    taken = torch.take_along_dim(x, torch.tensor([5, 1, 3]))
    assert taken.scale.tolist() == [0.25, 1.0, 0.5]
    assert taken.int().tolist() == [4, 1, 2]


def test_a_function_of_somebody_else_with_a_known_name_meets_no_rule():
    def flatten(x: Any) -> Any:
        return torch.overrides.handle_torch_function(flatten, (x,), x) if isinstance(x, QuantTensor) else x + 1

    result = flatten(quantized(IMAGE))
    assert isinstance(result, Tensor)


def test_grids_are_the_same_by_identity_or_by_a_common_origin():
    origin = GridOrigin()
    x = quantized(IMAGE).replace(origin=origin)
    wide = quantized(IMAGE, width=6.0).replace(origin=origin)
    for other in (x.clone(), x.replace(origin=None), quantized(IMAGE).replace(origin=origin), wide):
        joined = torch.cat([x, other])
        assert isinstance(joined, QuantTensor)
        assert joined.bit_width == max(x.bit_width, other.bit_width)
        assert joined.is_valid
    others = (quantized(IMAGE, 0.25), quantized(IMAGE, zero_point=1.0), quantized(IMAGE + 8, signed=False))
    for other in (quantized(IMAGE), *(other.replace(origin=origin) for other in others)):
        assert isinstance(torch.cat([x, other]), Tensor)
        assert isinstance(x + other, Tensor)
        assert isinstance(torch.where(IMAGE > 0, x, other), Tensor)


def test_a_join_has_only_what_all_parts_have():
    narrow = quantized(IMAGE.clamp(-7), narrow_range=True)
    assert torch.cat([narrow, narrow]).narrow_range
    assert not torch.cat([narrow, narrow.replace(narrow_range=False)]).narrow_range
    assert not torch.cat([narrow, narrow.replace(zero_on_grid=False)]).zero_on_grid


integers_of_a_range = st.tuples(st.integers(-(2**20), 0), st.integers(0, 2**20))


@given(bounds=integers_of_a_range, signed=st.booleans())
def test_bits_hold_the_range_and_one_less_does_not(bounds: tuple[int, int], signed: bool):
    low, high = bounds if signed else (0, bounds[1])
    assume(high > 1)
    width = float(bits(torch.tensor(float(low)).double(), torch.tensor(float(high)).double(), signed=signed))
    first, last = integer_range(width, signed=signed, narrow_range=False)
    assert first <= low
    assert high <= last
    first, last = integer_range(width - 1, signed=signed, narrow_range=False)
    assert low < first or high > last


widths = st.integers(2, 8)


@given(width=widths, signed=st.booleans(), narrow=st.booleans(), zero_point=st.integers(-3, 3))
def test_the_extremes_of_the_operands_stay_in_the_range_of_the_result(
    width: int, signed: bool, narrow: bool, zero_point: int
):
    low, high = integer_range(width, signed=signed, narrow_range=narrow)
    x = quantized(
        torch.tensor([[low, high], [high, low]]),
        width=width,
        zero_point=float(zero_point),
        signed=signed,
        narrow_range=narrow,
    )
    y = x.flip(0)
    calls = [x + y, x + x, x - y, x - x, torch.rsub(x, y), -x, x.sum(1), x.mean(0), F.avg_pool1d(x, 2)]
    if zero_point == 0:
        calls += [x * y, x * x, x @ y, abs(x)]
    for result in calls:
        assert isinstance(result, QuantTensor)
        assert result.is_valid


@pytest.mark.parametrize(
    ("call", "width", "signed", "scale"),
    [
        (lambda x, u: x + x, 9, True, 0.5),
        (lambda x, u: u + u, 9, False, 0.5),
        (lambda x, u: u - u, 9, True, 0.5),
        (lambda x, u: -u, 9, True, 0.5),
        (lambda x, u: -x, 9, True, 0.5),
        (lambda x, u: -x.replace(narrow_range=True), 8, True, 0.5),
        (lambda x, u: abs(x), 8, False, 0.5),
        (lambda x, u: x * x, 16, True, 0.25),
        (lambda x, u: u * u, 16, False, 0.25),
        (lambda x, u: x * u, 16, True, 0.25),
        (lambda x, u: x @ x, 18, True, 0.25),
        (lambda x, u: x.sum(1), 10, True, 0.5),
        (lambda x, u: x.mean(1), 10, True, 0.125),
        (lambda x, u: F.adaptive_avg_pool2d(u.unsqueeze(0), 1), 12, False, 0.5 / 16),
        (lambda x, u: x * 3, 8, True, 1.5),
        (lambda x, u: x / 2, 8, True, 0.25),
    ],
)
def test_bits_and_scale_of_results(call: Callable[..., Any], width: int, signed: bool, scale: float):
    x = quantized(torch.zeros(4, 4), width=8.0)
    result = call(x, quantized(torch.zeros(4, 4), width=8.0, signed=False))
    assert (float(result.bit_width), result.signed, float(result.scale)) == (width, signed, scale)


# (input bits, weight bits, terms) → bits: QuantLinear and QuantConv2d with return_quant_tensor=True in Brevitas 0.13.4,
# the same for signed and unsigned inputs; weights of narrow range.
MEASURED = {
    (2, 2, 1): 4,
    (2, 2, 3): 5,
    (2, 2, 16): 8,
    (2, 4, 3): 8,
    (2, 4, 16): 10,
    (2, 8, 1): 10,
    (4, 2, 3): 8,
    (4, 4, 1): 8,
    (4, 4, 3): 10,
    (4, 4, 16): 12,
    (4, 8, 16): 16,
    (8, 2, 16): 14,
    (8, 4, 3): 14,
    (8, 8, 1): 16,
    (8, 8, 3): 18,
    (8, 8, 16): 20,
    (8, 4, 75): 19,  # 3 channels, kernel 5 x 5
    (8, 8, 75): 23,
    (8, 4, 18): 17,  # 4 channels in 2 groups, kernel 3 x 3
    (8, 8, 18): 21,
    (8, 8, 9): 20,  # depthwise, kernel 3 x 3
}


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize(("sizes", "width"), MEASURED.items())
def test_accumulators_have_the_bits_that_were_measured(sizes: tuple[int, int, int], width: int, signed: bool):
    x = quantized(torch.zeros(1), width=sizes[0], signed=signed)
    weight = quantized(torch.zeros(1), width=sizes[1], narrow_range=True)
    got = accumulator_bit_width(x, weight, terms=sizes[2])
    assert (float(got), got.dtype, got.dim()) == (width, torch.float32, 0)


def test_an_accumulator_of_unsigned_inputs_and_the_whole_range_of_weights_gets_the_bit_that_is_missing():
    x, weight = quantized(torch.zeros(1), width=2.0, signed=False), quantized(torch.zeros(1), width=2.0)
    assert accumulator_bit_width(x, weight, terms=3) == 6  # 3 · 3 · −2 = −18; ⌈log2(3 · 3 · 3)⌉ = 5


@given(
    width=widths,
    weight_width=widths,
    terms=st.integers(1, 5000),
    signed=st.booleans(),
    weight_signed=st.booleans(),
    narrow=st.booleans(),
)
def test_an_accumulator_holds_the_extreme_sums(
    width: int, weight_width: int, terms: int, signed: bool, weight_signed: bool, narrow: bool
):
    x = quantized(torch.zeros(1), width=width, signed=signed)
    weight = quantized(torch.zeros(1), width=weight_width, signed=weight_signed, narrow_range=narrow)
    low, high = integer_range(
        float(accumulator_bit_width(x, weight, terms=terms)), signed=signed or weight_signed, narrow_range=False
    )
    extremes = [int(a) * int(b) * terms for a in x.range() for b in weight.range()]
    assert low <= min(extremes)
    assert max(extremes) <= high


def test_scale_and_value_are_differentiable():
    scale = torch.tensor(0.5, requires_grad=True)
    x = QuantTensor(torch.tensor([1.0, 2.0]), scale, torch.tensor(0.0), torch.tensor(4.0), signed=True, symmetric=True)
    (x * x).mean().scale.backward()  # s² / 2
    assert scale.grad == 0.5
    assert not x.detach().scale.requires_grad


def test_no_two_rules_claim_one_operation():
    operations = [operation for rule in RULES for operation in rule.operations]
    assert len(operations) == len(set(operations))


@pytest.mark.parametrize(
    "drop",
    [F.dropout, F.dropout2d, lambda x: torch.dropout(x, 0.5, True), lambda x: torch.feature_dropout(x, 0.5, True)],
)
@pytest.mark.parametrize("zero_point", [0.0, 3.0])
def test_dropout_in_training_keeps_the_integers_on_a_coarser_scale(drop, zero_point):
    torch.manual_seed(0)
    grid = CHANNELS, torch.tensor(zero_point), torch.tensor(4.0)
    x = QuantTensor((IMAGE - zero_point) * CHANNELS, *grid, signed=True, symmetric=zero_point == 0)
    out = drop(x)
    assert out.is_valid
    assert torch.equal(out.scale, CHANNELS * 2)
    dropped = out.value == 0
    assert torch.equal(out.int()[dropped], torch.full_like(out.int()[dropped], int(zero_point)))
    assert torch.equal(out.int()[~dropped], x.int()[~dropped])


@pytest.mark.parametrize("zero_points", [(-8.0, 0.0), (7.0, 0.0), (3.0, -8.0)])
@pytest.mark.parametrize("terms", [1, 3, 8])
def test_the_bits_of_an_accumulator_count_with_zero_points(zero_points, terms):
    x, w = (
        QuantTensor(torch.zeros(1), torch.tensor(1.0), torch.tensor(z), torch.tensor(4.0), signed=True)
        for z in zero_points
    )
    width = accumulator_bit_width(x, w, terms=terms)
    corners = [(a - zero_points[0]) * (b - zero_points[1]) * terms for a in (-8, 7) for b in (-8, 7)]
    assert -(2 ** (width - 1)) <= min(corners)
    assert max(corners) <= 2 ** (width - 1) - 1


def test_the_scale_of_an_average_pool_follows_its_divisor():
    x = QuantTensor(IMAGE * CHANNELS, CHANNELS, torch.tensor(0.0), torch.tensor(4.0), signed=True, symmetric=True)
    for divisor in (1, 3, 4, 8):
        out = F.avg_pool2d(x, 2, divisor_override=divisor)
        assert out.is_valid
        assert torch.equal(out.scale, CHANNELS / divisor)
        assert torch.equal(out.int(), F.avg_pool2d(x, 2, divisor_override=1).int())
