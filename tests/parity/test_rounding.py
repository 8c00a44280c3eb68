"""Rounding against Brevitas's: the modes element by element, and quantizers that use them."""

import brevitas.core.function_wrapper as wrapper
import brevitas.nn as bnn
import torch
from brevitas.core.function_wrapper.stochastic_round import StochasticRoundSte
from hypothesis import given, settings
from hypothesis import strategies as st

import quant_core.components as c
import quant_nn as qnn
from quant_core.ops import rounding_ste

MODES = {
    "ROUND": wrapper.RoundSte,
    "FLOOR": wrapper.FloorSte,
    "CEIL": wrapper.CeilSte,
    "TO_ZERO": wrapper.RoundToZeroSte,
    "DPU": wrapper.DPURoundSte,
}
WORDS = {"ROUND": "round", "FLOOR": "floor", "CEIL": "ceil", "TO_ZERO": "round_to_zero", "DPU": "dpu"}
halves = st.integers(-2000, 2000).map(lambda n: n / 2)


@given(st.lists(st.one_of(halves, st.floats(-1000, 1000, width=32)), min_size=1), st.sampled_from(sorted(MODES)))
def test_elements_and_their_gradient(values: list[float], mode: str) -> None:
    ours, theirs = (torch.tensor(values, requires_grad=True) for _ in range(2))
    found, wanted = rounding_ste(ours, mode), MODES[mode]()(theirs)
    assert torch.equal(found, wanted)
    found.sum().backward()
    wanted.sum().backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    assert torch.equal(ours.grad, theirs.grad)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 8), st.sampled_from(sorted(MODES)))
def test_weights_of_layers(seed: int, bits: int, mode: str) -> None:
    weight = torch.randn(5, 16, generator=torch.Generator().manual_seed(seed))
    found = []
    for layer in (
        qnn.QuantLinear(16, 5, bias=False, weight_bit_width=bits, weight_rounding_mode=mode),
        bnn.QuantLinear(16, 5, bias=False, weight_bit_width=bits, weight_float_to_int_impl_type=WORDS[mode]),
    ):
        with torch.no_grad():
            layer.weight.copy_(weight)
        layer.weight_quant.init_tensor_quant()
        found.append(layer.quant_weight().value)
    assert torch.equal(found[0], found[1])


def test_random_rounding_has_the_same_mean_in_training_and_none_of_it_in_evaluation() -> None:
    torch.manual_seed(0)
    ours, theirs = c.StochasticRounding(seed=0), StochasticRoundSte(seed=0)
    for fraction in (0.1, 0.5, 0.8, -0.3):
        x = torch.full((100_000,), fraction)
        assert abs(float(ours(x).mean() - theirs(x).mean())) < 0.01
    x = torch.linspace(-3, 3, 25)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))
