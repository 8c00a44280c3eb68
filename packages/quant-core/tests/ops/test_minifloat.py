"""Fake quantization to minifloats: laws of rounding, and three spellings that are one function."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from quant_core.errors import ConfigurationError
from quant_core.ops import FloatFormat, quantize_float
from quant_core.ops.minifloat import fake_float, round_to_format, round_unbounded, spacing

OCP_E5M2 = {"inf_values": ("00",), "nan_values": ("01", "10", "11")}
FORMATS = [
    FloatFormat.of_bits(4, 3),
    FloatFormat.of_bits(4, 3, nan_values=("111",)),
    FloatFormat.of_bits(5, 2, **OCP_E5M2),
    FloatFormat.of_bits(4, 3, 8),
    FloatFormat.of_bits(2, 1),
    FloatFormat.of_bits(3, 0),
    FloatFormat.of_bits(2, 3, has_subnormal=False),
    FloatFormat.of_bits(5, 2, saturating=False, **OCP_E5M2),
    FloatFormat.of_bits(4, 3, nan_values=("111",), saturating=False),
]
HALF = FloatFormat(
    exponent_bit_width=5, mantissa_bit_width=10, exponent_bias=15, max_value=65504.0, has_inf=True, saturating=False
)
formats = st.sampled_from(FORMATS)
modes = st.sampled_from(["ROUND", "FLOOR", "CEIL", "TO_ZERO", "HALF_UP"])
seeds = st.integers(0, 10_000)


def wide(seed: int, *shape: int) -> Tensor:
    """Numbers of many sizes, from far below the smallest number of a format to far beyond the largest."""
    random = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=random) * torch.exp2(torch.randint(-22, 22, shape, generator=random).float())


def numbers(found: FloatFormat) -> Tensor:
    """All finite numbers of a format, by its definition."""
    positive = {0.0}
    for exponent, mantissa in itertools.product(range(2**found.exponent_bit_width), range(2**found.mantissa_bit_width)):
        share = mantissa / 2**found.mantissa_bit_width
        if exponent:
            positive.add((1 + share) * 2.0 ** (exponent - found.exponent_bias))
        elif found.has_subnormal:
            positive.add(share * 2.0 ** (1 - found.exponent_bias))
    kept = [number for number in positive if number <= found.max_value]
    lowest = [number for number in kept if found.has_subnormal or number == 0 or number >= found.smallest_normal]
    return torch.tensor(sorted({*lowest, *(-number for number in lowest)}))


@pytest.mark.parametrize("found", FORMATS, ids=str)
def test_every_number_of_a_format_stays_as_it_is(found: FloatFormat) -> None:
    grid = numbers(found)
    if not found.has_subnormal:  # exponent 0 stands for the number 0 alone
        grid = grid[(grid == 0) | (grid.abs() >= found.smallest_normal)]
    assert torch.equal(round_to_format(grid, found), grid)


@settings(max_examples=60, deadline=None)
@given(formats, seeds)
def test_rounding_goes_to_the_nearest_number(found: FloatFormat, seed: int) -> None:
    x = wide(seed, 200).clamp(-found.max_value, found.max_value)
    nearest = (x[:, None].double() - numbers(found).double()).abs().amin(1)
    assert torch.equal((round_to_format(x, found).double() - x.double()).abs(), nearest)


@settings(max_examples=40, deadline=None)
@given(formats, modes, seeds)
def test_rounding_is_monotonic_idempotent_and_at_most_one_spacing_away(
    found: FloatFormat, mode: str, seed: int
) -> None:
    x = wide(seed, 300).sort().values
    y = round_to_format(x, found, mode)
    finite = torch.isfinite(y)
    assert bool((y[finite].diff() >= 0).all())
    assert torch.equal(round_to_format(y[finite], found, mode), y[finite])
    inside = x.abs() <= found.max_value
    assert bool(((y - x).abs()[inside] <= spacing(x, found)[inside]).all())


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        (torch.float8_e4m3fn, FloatFormat.of_bits(4, 3, nan_values=("111",), saturating=False)),
        (torch.float8_e5m2, FloatFormat.of_bits(5, 2, saturating=False, **OCP_E5M2)),
        (torch.float16, HALF),
    ],
    ids=str,
)
def test_the_numbers_are_those_that_torch_casts_to(kind: torch.dtype, found: FloatFormat) -> None:
    x = wide(7, 20_000)
    x = x[x.abs() <= found.max_value]
    ours, theirs = round_to_format(x, found), x.to(kind).float()
    assert torch.equal(ours, theirs)


def test_what_is_too_large() -> None:
    x = torch.tensor([1e6, -math.inf, math.nan])
    e4m3, ocp = FloatFormat.of_bits(4, 3), FloatFormat.of_bits(5, 2, saturating=False, **OCP_E5M2)
    assert round_to_format(x, e4m3)[:2].tolist() == [480.0, -480.0]
    assert round_to_format(x, ocp)[:2].tolist() == [math.inf, -math.inf]
    only_nan = FloatFormat.of_bits(4, 3, nan_values=("111",), saturating=False)
    assert bool(torch.isnan(round_to_format(x, only_nan)).all())
    assert bool(torch.isnan(round_to_format(x, e4m3)[2]))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(FORMATS[:7]), modes, seeds, st.booleans(), st.sampled_from(["masked", "pass"]))
def test_gradients(found: FloatFormat, mode: str, seed: int, per_channel: bool, clamp_gradient: str) -> None:
    x = wide(seed, 3, 50).double().requires_grad_()
    scale = torch.tensor([[0.3], [1.0], [7.0]] if per_channel else 0.3, dtype=torch.float64, requires_grad=True)
    incoming = torch.randn(3, 50, generator=torch.Generator().manual_seed(seed)).double()
    quantize_float(x, scale, found, rounding_mode=mode, clamp_gradient=clamp_gradient).backward(incoming)
    v = (x / scale).detach()
    q = round_to_format(v, found, mode)
    inside = (round_unbounded(v, found, mode).abs() <= found.max_value) | (clamp_gradient == "pass")
    assert x.grad is not None
    assert scale.grad is not None
    torch.testing.assert_close(x.grad, incoming * inside)
    terms = incoming * torch.where(inside, q - v, q)
    torch.testing.assert_close(scale.grad, terms.sum_to_size(scale.shape), rtol=1e-9, atol=1e-6)


class _Quantize(nn.Module):
    def __init__(self, found: FloatFormat, mode: str) -> None:
        super().__init__()
        self.found, self.mode = found, mode

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        return quantize_float(x, scale, self.found, rounding_mode=self.mode)


@pytest.mark.parametrize("found", FORMATS, ids=str)
@pytest.mark.parametrize("mode", ["ROUND", "FLOOR"])
def test_the_three_spellings_are_one_function(found: FloatFormat, mode: str) -> None:
    model, x, scale = _Quantize(found, mode), wide(3, 4, 60), torch.tensor([[0.3], [1.0], [7.0], [0.01]])
    outputs, gradients = [], []
    captured = torch.export.export(model, (x, scale)).module()
    torch.compiler.reset()
    for run in (model, torch.compile(model, fullgraph=True, backend="aot_eager"), captured):
        leaves = [x.clone().requires_grad_(), scale.clone().requires_grad_()]
        out = run(*leaves)
        finite = torch.isfinite(out)
        torch.where(finite, out, torch.zeros_like(out)).sum().backward() if found.saturating else None
        outputs.append(out.detach())
        gradients.append([leaf.grad for leaf in leaves])
    assert torch.equal(outputs[0].nan_to_num(1e30), outputs[1].nan_to_num(1e30))
    assert torch.equal(outputs[0].nan_to_num(1e30), outputs[2].nan_to_num(1e30))
    if found.saturating:
        for other in gradients[1:]:
            assert torch.equal(gradients[0][0], other[0])
            torch.testing.assert_close(gradients[0][1], other[1], rtol=1e-5, atol=1e-3)
    assert torch.equal(outputs[0].nan_to_num(1e30), fake_float(x, scale, found, mode).nan_to_num(1e30))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32_and_rounded_once(dtype: torch.dtype) -> None:
    x = torch.linspace(-3, 3, 101).to(dtype)
    y = quantize_float(x, torch.tensor(0.01), FORMATS[0])
    assert y.dtype == dtype
    assert torch.equal(y, quantize_float(x.float(), torch.tensor(0.01), FORMATS[0]).to(dtype))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((0, 3), "exponent_bit_width=0 is out of range\n  it is a whole number from 1 to 8"),
        ((4, 11), "mantissa_bit_width=11 is out of range\n  it is a whole number from 0 to 10"),
        ((4, 3, 0.5), "exponent_bias=0.5 is out of range"),
        ((8, 3), "exponent_bias=127 with 8 exponent bits goes beyond float32"),
    ],
)
def test_formats_that_there_are_not(options: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        FloatFormat.of_bits(*options)
    assert message in str(caught.value)


def test_codes_that_are_none() -> None:
    with pytest.raises(ConfigurationError) as caught:
        FloatFormat.of_bits(4, 3, nan_values=("11",))
    assert str(caught.value) == (
        "nan_values holds '11'\n"
        "  a code is the mantissa beside the largest exponent, 3 characters that are 0 or 1\n"
        "  Write, for example, nan_values=('111',)."
    )


def test_a_format_without_room_for_what_is_too_large() -> None:
    with pytest.raises(ConfigurationError) as caught:
        FloatFormat.of_bits(4, 3, saturating=False)
    assert str(caught.value).splitlines()[:2] == [
        "saturating=False has no effect here",
        "  what is too large becomes an infinity or NaN then, and the format has neither",
    ]
    with pytest.raises(ConfigurationError, match="max_value=500 is none of the numbers of the format"):
        FloatFormat(exponent_bit_width=4, mantissa_bit_width=3, exponent_bias=7, max_value=500)
