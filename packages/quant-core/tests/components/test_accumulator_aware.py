"""Weights whose accumulator cannot overflow: proved in integer arithmetic with the worst inputs that there are."""

import copy
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from quant_core.components import (
    AccumulatorAwarePreScaling,
    ConstBitWidth,
    InputGrid,
    L1Norm,
    LogFloatRestriction,
    ParameterScaling,
    PerChannel,
    WeightNormIntQuant,
)
from quant_core.errors import ConfigurationError, InputError, QuantError, UnusedAttributeError
from quant_core.export import capture
from quant_core.proxies import WeightQuantProxyFromInjector
from quant_core.quant import (
    Int8AccumulatorAwareWeightQuant,
    Int8AccumulatorAwareZeroCenterWeightQuant,
    Int8WeightNormL2PerChannelFixedPoint,
)
from quant_core.tensor import QuantTensor

A2Q, A2Q_PLUS = Int8AccumulatorAwareWeightQuant, Int8AccumulatorAwareZeroCenterWeightQuant
KINDS = ["normal", "all equal", "one sign", "far from zero", "two values", "one large", "tiny", "sparse"]


class Layer(nn.Module):
    output_channel_dim = 0

    def __init__(self, quantizer: Any, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.weight_quant = WeightQuantProxyFromInjector(self, quantizer, "weight_")

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight_quant(self.weight)
        return nn.functional.linear(x, weight if isinstance(weight, Tensor) else weight.value)


def weights(kind: str, seed: int, terms: int) -> Tensor:
    normal = torch.randn(3, terms, generator=torch.Generator().manual_seed(seed))
    return {
        "normal": normal,
        "all equal": torch.ones(3, terms),
        "one sign": normal.abs(),
        "far from zero": 1000 + normal * 1e-3,
        "two values": normal.sign() * 0.5,
        "one large": normal + torch.eye(3, terms) * 1e4,
        "tiny": normal * 1e-30,
        "sparse": normal * (normal > 1.5),
    }[kind]


def integers_of(layer: Layer, bits: int, signed: bool) -> Tensor:
    """Exact: the integers, in int64."""
    zero, grid = torch.tensor(0.0), torch.tensor(float(bits))
    x = QuantTensor(torch.zeros(1), torch.tensor(1.0), zero, grid, signed=signed, symmetric=True)
    quantized = layer.weight_quant(layer.weight, x)
    assert isinstance(quantized, QuantTensor)
    assert quantized.is_valid
    return quantized.int().to(torch.int64)


def worst_sums(integers: Tensor, low: int, high: int) -> tuple[int, int]:
    """The smallest and largest sum of products with inputs from ``low`` to ``high``: each input at the end that hurts most."""
    least, most = (torch.where(integers > 0, end, other) for end, other in ((low, high), (high, low)))
    return int((integers * least).sum(1).min()), int((integers * most).sum(1).max())


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([A2Q, A2Q_PLUS]),
    st.sampled_from(KINDS),
    st.integers(0, 10_000),
    st.sampled_from([1, 2, 7, 64, 1000]),
    st.integers(2, 8),
    st.booleans(),
    st.integers(6, 34),
    st.integers(2, 8),
)
def test_no_input_whatever_overflows_the_accumulator(
    quantizer: Any, kind: str, seed: int, terms: int, bits: int, signed: bool, accumulator: int, weight_bits: int
) -> None:
    """Also right after the start, where nothing has been trained, and for weights that a float can hardly tell apart."""
    chosen = quantizer.let(accumulator_bit_width=accumulator, bit_width=weight_bits)
    integers = integers_of(Layer(chosen, weights(kind, seed, terms)), bits, signed)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    least, most = worst_sums(integers, low, high)
    assert -(2 ** (accumulator - 1)) <= least
    assert most <= 2 ** (accumulator - 1) - 1


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([A2Q, A2Q_PLUS]), st.integers(0, 10_000), st.integers(2, 8), st.integers(8, 20), st.floats(-3, 12)
)
def test_what_is_learned_cannot_break_the_bound(
    quantizer: Any, seed: int, bits: int, accumulator: int, length: float
) -> None:
    layer = Layer(quantizer.let(accumulator_bit_width=accumulator), weights("normal", seed, 200))
    with torch.no_grad():
        for name, parameter in layer.weight_quant.named_parameters():
            parameter.add_(length if "pre_scaling" in name else -length / 2)
    least, most = worst_sums(integers_of(layer, bits, False), 0, 2**bits - 1)
    assert -(2 ** (accumulator - 1)) <= least
    assert most <= 2 ** (accumulator - 1) - 1


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([A2Q, A2Q_PLUS]), st.integers(0, 255), st.integers(8, 20))
def test_an_input_with_a_zero_point_is_bounded_as_well(quantizer: Any, zero_point: int, accumulator: int) -> None:
    layer = Layer(quantizer.let(accumulator_bit_width=accumulator), weights("normal", 0, 300))
    grid = torch.tensor(1.0), torch.tensor(float(zero_point)), torch.tensor(8.0)
    quantized = layer.weight_quant(layer.weight, QuantTensor(torch.zeros(1), *grid, signed=False))
    assert isinstance(quantized, QuantTensor)
    least, most = worst_sums(quantized.int().to(torch.int64), -zero_point, 255 - zero_point)
    assert -(2 ** (accumulator - 1)) <= least
    assert most <= 2 ** (accumulator - 1) - 1


def test_the_bound_is_met_and_not_avoided() -> None:
    """Rounding towards zero takes less than one from each of 64 integers; all else of the sum of magnitudes is used."""
    for quantizer, most in ((A2Q, (2**15 - 1) / 2**8), (A2Q_PLUS, (2**16 - 2) / 255)):
        layer = Layer(quantizer.let(accumulator_bit_width=16), weights("normal", 0, 64))
        sums = integers_of(layer, 8, False).abs().sum(1)
        assert (sums <= most).all()
        assert (sums > most - 64).all()


def test_without_the_mean_twice_the_magnitude_fits() -> None:
    sums = []
    for quantizer in (A2Q, A2Q_PLUS):
        layer = Layer(quantizer.let(accumulator_bit_width=16), weights("normal", 0, 256))
        sums.append(int(integers_of(layer, 8, False).abs().sum()))
    assert sums[1] > 1.9 * sums[0]


def test_rounding_to_the_nearest_would_overflow() -> None:
    """What the bound rests on: the same weights, rounded to the nearest, need more bits."""
    weight = torch.full((1, 1000), 0.37)
    weight[0, ::2] *= -1
    layer = Layer(A2Q.let(accumulator_bit_width=17), weight)
    assert integers_of(layer, 8, True).abs().sum() * 2**7 <= 2**16 - 1
    scale = torch.tensor([[0.37 / 127]])
    nearest = WeightNormIntQuant(
        ParameterScaling(scale, restrict_scaling_impl=LogFloatRestriction()),
        AccumulatorAwarePreScaling(L1Norm(PerChannel(0)), torch.tensor([[370.0]]), accumulator_bit_width=17),
        ConstBitWidth(8),
    )
    value = nearest(weight, InputGrid(torch.tensor(8.0), True))[0]
    assert (value / scale).round().abs().sum() * 2**7 > 2**16 - 1


def test_without_a_bound_the_start_is_the_weight_itself() -> None:
    weight = weights("normal", 0, 50)
    layer = Layer(Int8WeightNormL2PerChannelFixedPoint, weight)
    quantized = layer.weight_quant(layer.weight)
    assert isinstance(quantized, QuantTensor)
    assert torch.allclose(quantized.scale, weight.abs().amax(1, keepdim=True) / 127)
    assert (quantized.value - weight).abs().max() <= 0.51 * quantized.scale.max()


@pytest.mark.parametrize("narrow", [False, True])
def test_the_scale_starts_at_the_largest_magnitude_over_the_largest_integer(narrow: bool) -> None:
    layer = Layer(Int8WeightNormL2PerChannelFixedPoint.let(bit_width=4, narrow_range=narrow), weights("normal", 0, 30))
    wanted = layer.weight.detach().abs().amax(1, keepdim=True) / 7
    torch.testing.assert_close(layer.weight_quant.scale().detach(), wanted)


def test_the_length_stays_what_was_learned_however_the_weight_grows() -> None:
    layer = Layer(Int8WeightNormL2PerChannelFixedPoint, weights("normal", 0, 50))
    before = layer.weight_quant(layer.weight)
    with torch.no_grad():
        layer.weight.mul_(4.0)
    after = layer.weight_quant(layer.weight)
    assert isinstance(before, QuantTensor)
    assert isinstance(after, QuantTensor)
    assert torch.equal(before.value, after.value)


@pytest.mark.parametrize("quantizer", [A2Q, A2Q_PLUS, Int8WeightNormL2PerChannelFixedPoint])
@pytest.mark.parametrize("worst", [float("inf"), float("nan")])
def test_a_weight_that_is_not_finite_is_told_with_its_layer(quantizer: Any, worst: float) -> None:
    known = {} if quantizer is Int8WeightNormL2PerChannelFixedPoint else {"input_bit_width": 4, "input_signed": False}
    layer = Layer(quantizer.let(**known), weights("normal", 0, 40))
    with torch.no_grad():
        layer.weight[1, 3] = worst
    with pytest.raises(InputError) as caught:
        layer.weight_quant(layer.weight)
    assert str(caught.value).startswith("the weight has no finite statistic\n  at Layer\n")


@pytest.mark.parametrize("quantizer", [A2Q, A2Q_PLUS, Int8WeightNormL2PerChannelFixedPoint])
def test_everything_learns_and_zero_weights_give_no_nan(quantizer: Any) -> None:
    for weight in (weights("normal", 0, 40), torch.zeros(3, 40)):
        known = (
            {} if quantizer is Int8WeightNormL2PerChannelFixedPoint else {"input_bit_width": 4, "input_signed": False}
        )
        layer = Layer(quantizer.let(**known), weight)
        layer(torch.randn(5, 40, generator=torch.Generator().manual_seed(1))).square().sum().backward()
        assert len(list(layer.parameters())) == 3
        for parameter in layer.parameters():
            assert parameter.grad is not None
            assert torch.isfinite(parameter.grad).all()


STATED = {"input_bit_width": 8, "input_signed": False, "accumulator_bit_width": 14}


@pytest.mark.parametrize("quantizer", [A2Q, A2Q_PLUS])
def test_captured_weights_are_the_same_integers(quantizer: Any) -> None:
    layer = Layer(quantizer.let(**STATED), weights("normal", 0, 40))
    program = capture(layer, (torch.zeros(1, 40),))
    (weight,) = program.quantizers
    assert (weight.op, weight.role, weight.bit_width, weight.narrow_range) == ("quant::int", "weight", 8, True)
    assert (
        "weight" in capture(layer, (torch.zeros(1, 40),)).exported.state_dict
    )  # stored under the name of the parameter
    assert weight.integers is not None
    quantized = layer.weight_quant(layer.weight)
    assert isinstance(quantized, QuantTensor)
    assert torch.equal(weight.integers, quantized.int())
    x = torch.randn(4, 40, generator=torch.Generator().manual_seed(0))
    assert torch.equal(capture(layer, (x,)).run(x), layer(x))


def test_copies_checkpoints_and_graphs_agree() -> None:
    torch._dynamo.reset()
    layer = Layer(A2Q.let(**STATED), weights("normal", 0, 40))
    with torch.no_grad():
        for parameter in layer.weight_quant.parameters():
            parameter.sub_(0.3)
    fresh = Layer(A2Q.let(**STATED), weights("normal", 1, 40))
    fresh.load_state_dict(layer.state_dict())
    x = torch.randn(4, 40, generator=torch.Generator().manual_seed(0))
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), fresh, compiled):
        assert torch.equal(other(x), layer(x))


REFUSED: dict[str, tuple[Any, type[QuantError], str]] = {
    "an input of unknown bits": (
        lambda: Layer(A2Q, torch.ones(1, 2))(torch.ones(1, 2)),
        InputError,
        "nothing says how many bits the input of the layer has\n"
        "  at Layer\n"
        "  the weights are bounded so that the accumulator holds their products with any input of those bits\n"
        "  Set input_quant on this layer or return_quant_tensor=True on the one before it, or state it with "
        "weight_input_bit_width and weight_input_signed.",
    ),
    "rounding": (
        lambda: Layer(A2Q.let(rounding_mode="ROUND"), torch.ones(1, 2)),
        UnusedAttributeError,
        "option 'weight_rounding_mode' has no effect\n"
        "  at Layer\n"
        "  'weight_rounding_mode' is known to WeightNormIntQuant, but nothing reads it as Int8AccumulatorAwareWeightQuant is "
        "configured\n"
        "  Leave weight_rounding_mode out, or choose components and options that read it.",
    ),
    "accumulator bits": (
        lambda: AccumulatorAwarePreScaling(L1Norm(), torch.tensor(1.0), accumulator_bit_width=1),
        ConfigurationError,
        "accumulator_bit_width=1 is out of range\n"
        "  an accumulator has a whole number of bits from 2 to 64\n"
        "  Use a number such as 16 or 24.",
    ),
    "half of the input": (
        lambda: AccumulatorAwarePreScaling(L1Norm(), torch.tensor(1.0), input_bit_width=8),
        ConfigurationError,
        "input_bit_width and input_signed belong together\n"
        "  got input_bit_width=8 and input_signed=None\n"
        "  Set both, or neither where the layer quantizes its input.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str) -> None:
    make, kind, message = REFUSED[case]
    with pytest.raises(kind) as caught:
        make()
    assert str(caught.value) == message
