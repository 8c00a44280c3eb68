"""Rounding by a module: at random, right on average and repeatable; learned; and what quantizers do with it."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from quant_core.components import ConstBitWidth, ConstScaling, IntQuant, StochasticRounding
from quant_core.errors import ConfigurationError
from quant_core.export import capture
from quant_core.ops import quantize_composed, quantize_int, rounding_ste
from quant_core.proxies import WeightQuantProxyFromInjector
from quant_core.quant import Int8WeightPerTensorFloat
from quant_core.tensor import QuantTensor

floats = st.floats(-1000, 1000, width=32)


@given(st.lists(floats, min_size=1), st.integers(0, 2**40))
def test_a_random_rounding_is_the_integer_below_or_above(values: list[float], seed: int) -> None:
    x = torch.tensor(values)
    out = StochasticRounding(seed)(x)
    assert torch.equal(out, out.round())
    assert ((out == x.floor()) | (out == x.ceil())).all()


@given(st.integers(-1000, 1000), st.integers(0, 1000))
def test_whole_numbers_stay(value: int, seed: int) -> None:
    x = torch.full((50,), float(value))
    assert torch.equal(StochasticRounding(seed)(x), x)


@pytest.mark.parametrize("seed", [None, 0, 7, -3, 2**35])
def test_it_is_right_on_average(seed: int | None) -> None:
    torch.manual_seed(0)
    rounding = StochasticRounding(seed)
    for fraction in (0.1, 0.5, 0.9, -0.25):
        mean = rounding(torch.full((40_000,), fraction)).mean().item()
        assert mean == pytest.approx(fraction, abs=4 * (0.25 / 40_000) ** 0.5)


def test_places_and_calls_are_independent() -> None:
    rounding = StochasticRounding(seed=3)
    draws = torch.stack([rounding(torch.full((20_000,), 0.5)) for _ in range(3)]) - 0.5
    for one, other in ((draws[0], draws[1]), (draws[1], draws[2]), (draws[0][1:], draws[0][:-1])):
        assert abs(float((one * other).mean())) < 4 * 0.25 / 20_000**0.5


def test_a_seed_repeats_and_a_checkpoint_goes_on() -> None:
    x = torch.full((100,), 0.5)
    first, second = StochasticRounding(seed=1), StochasticRounding(seed=1)
    assert torch.equal(first(x), second(x))
    assert not torch.equal(first(x), StochasticRounding(seed=2)(x))
    resumed = StochasticRounding(seed=1)
    resumed.load_state_dict(first.state_dict())
    assert torch.equal(resumed(x), first(x))
    assert torch.equal(copy.deepcopy(first)(x), first(x))


def test_without_a_seed_it_follows_torchs() -> None:
    rounding, x = StochasticRounding(), torch.full((100,), 0.5)
    drawn = []
    for _ in range(2):
        torch.manual_seed(5)
        drawn.append(rounding(x))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], rounding(x))
    assert list(rounding.state_dict()) == []


def test_with_a_seed_a_compiled_graph_draws_the_same() -> None:
    torch._dynamo.reset()
    x = torch.full((100,), 0.3)
    eager, traced = StochasticRounding(seed=1), StochasticRounding(seed=1)
    compiled = torch.compile(traced, fullgraph=True, backend="aot_eager")
    for _ in range(3):
        assert torch.equal(compiled(x), eager(x))
    assert traced.draws.item() == 3


def quantizer(**options: Any) -> IntQuant:
    return IntQuant(ConstScaling(1.0), ConstBitWidth(4), signed=True, **options)


def test_quantizers_train_with_it_and_evaluate_without() -> None:
    x = torch.linspace(-0.8, 0.8, 1000).requires_grad_()
    quant = quantizer(rounding_impl=StochasticRounding(seed=0))
    value = quant(x)[0]
    nearest = quantizer()(x)[0]
    assert not torch.equal(value, nearest)
    assert ((value - x).abs() < 1 / 8).all()
    value.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.ones(1000))
    assert torch.equal(quant.eval()(x)[0], nearest)


class Layer(nn.Module):
    output_channel_dim = 0

    def __init__(self, chosen: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 30, generator=torch.Generator().manual_seed(0)))
        self.weight_quant = WeightQuantProxyFromInjector(self, chosen, "weight_")

    def quantized(self) -> QuantTensor:
        out = self.weight_quant(self.weight)
        assert isinstance(out, QuantTensor)
        return out

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.quantized().value)


@pytest.mark.parametrize("training", [True, False])
def test_an_export_is_not_random(training: bool) -> None:
    layer = Layer(Int8WeightPerTensorFloat.let(rounding_impl=StochasticRounding, seed=1)).train(training)
    (weight,) = capture(layer, (torch.zeros(1, 30),)).quantizers
    assert weight.integers is not None
    assert torch.equal(weight.integers, Layer(Int8WeightPerTensorFloat).quantized().int())
    assert layer.training is training


class UpOrDown(nn.Module):
    """A learned rounding: each element goes up where its parameter is positive."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.direction = nn.Parameter(torch.full_like(module.weight, 0.1))

    def forward(self, x: Tensor) -> Tensor:
        soft = torch.sigmoid(self.direction)
        return torch.floor(x).detach() + soft + ((soft >= 0.5).to(x.dtype) - soft).detach()


def test_a_learned_rounding_is_a_module_of_ones_own() -> None:
    layer = Layer(Int8WeightPerTensorFloat.let(rounding_impl=UpOrDown, bit_width=4))
    x = torch.ones(1, 30)
    up = layer.quantized()
    assert (up.value.detach() >= layer.weight.detach() - 1e-6)[layer.weight < layer.weight.max()].all()
    layer(x).square().sum().backward()
    direction = layer.get_parameter("weight_quant.tensor_quant.rounding_impl.direction")
    assert direction.grad is not None
    assert (direction.grad != 0).any()
    (weight,) = capture(layer, (x,)).quantizers
    assert weight.integers is not None
    assert torch.equal(weight.integers, up.int())


def test_a_mode_beside_a_module_is_refused() -> None:
    with pytest.raises(ConfigurationError) as caught:
        quantizer(rounding_mode="FLOOR", rounding_impl=StochasticRounding())
    assert str(caught.value) == (
        "rounding_mode='FLOOR' has no effect\n  rounding_impl=StochasticRounding rounds in its place\n"
        "  Leave one of them out."
    )


def test_a_seed_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError) as caught:
        StochasticRounding(seed=0.5)  # type: ignore[arg-type]
    assert str(caught.value) == (
        "seed=0.5 is not a seed\n  the random numbers are computed from a whole number\n"
        "  Use a whole number, or leave it out to draw from torch's generator."
    )


@given(
    st.integers(0, 1000),
    st.integers(2, 8),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["masked", "pass"]),
    st.sampled_from(["ROUND", "FLOOR", "DPU"]),
    st.integers(0, 3),
)
def test_the_composed_form_equals_the_fused_one(
    seed: int, bits: int, signed: bool, narrow: bool, clamp: Any, mode: str, zero_point: int
) -> None:
    results = []
    for composed in (False, True):
        x = torch.randn(100, generator=torch.Generator().manual_seed(seed)).requires_grad_()
        scale = torch.tensor(0.1, requires_grad=True)
        kinds: dict[str, Any] = {"signed": signed, "narrow_range": narrow, "clamp_gradient": clamp}
        if composed:
            y = quantize_composed(x, scale, zero_point, bits, rounding=lambda x: rounding_ste(x, mode), **kinds)
        else:
            y = quantize_int(x, scale, zero_point, bits, rounding_mode=mode, **kinds)
        y.backward(torch.linspace(-1, 1, 100))
        results.append((y.detach(), x.grad, scale.grad))
    (value, grad, learned), (other, other_grad, other_learned) = results
    assert torch.equal(value, other)
    assert torch.allclose(grad, other_grad, rtol=1e-5, atol=1e-6)
    assert torch.allclose(learned, other_learned, rtol=1e-3, atol=0.05)
