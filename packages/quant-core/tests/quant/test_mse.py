"""Named quantizers whose scale starts from the smallest squared error."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import quant_core.quant as q
from quant_core.errors import ConfigurationError, InputError
from quant_core.proxies import QuantProxy

WEIGHTS = [name for name in q.__all__ if name.startswith("Int8Weight") and name.endswith("MSE")]
ACTS = [name for name in q.__all__ if "nt8Act" in name and name.endswith("MSE") and "Shifted" not in name]


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def weight_proxy(name: str, weight: Tensor, **options: Any) -> QuantProxy:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.output_channel_dim = 0
    with torch.no_grad():
        layer.weight.copy_(weight)
    quant = getattr(q, name).let(**options)
    return quant.proxy_class(layer, quant, "weight_")


def act_proxy(name: str, **options: Any) -> QuantProxy:
    quant = getattr(q, name).let(**options)
    return quant.proxy_class(nn.Identity(), quant)


def test_all_of_them_are_here() -> None:
    assert len(WEIGHTS) == 4
    assert len(ACTS) == 4


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(WEIGHTS), st.integers(0, 10_000), st.integers(2, 8))
def test_the_error_is_no_larger_than_with_the_largest_weight(name: str, seed: int, bits: int) -> None:
    weight = normal(seed, 3, 40)
    plain = "Int8WeightPerChannelFloat" if "Channel" in name else "Int8WeightPerTensorFloat"
    restricted = {"restrict_scaling_impl": getattr(q, name).restrict_scaling_impl} if "FixedPoint" in name else {}
    errors = [
        (proxy(weight).value - weight).square().mean().item()
        for proxy in (
            weight_proxy(name, weight, bit_width=bits),
            weight_proxy(plain, weight, bit_width=bits, **restricted),
        )
    ]
    assert errors[0] <= errors[1] * (1 + 1e-5)


@pytest.mark.parametrize("name", WEIGHTS)
def test_the_scale_of_a_weight_learns_from_what_is_clamped(name: str) -> None:
    weight = torch.cat([normal(0, 2, 40), torch.full((2, 1), 9.0)], dim=1)
    proxy = weight_proxy(name, weight, bit_width=3)
    (scale,) = proxy.parameters()
    leaf = weight.clone().requires_grad_()
    proxy(leaf).value.sum().backward()
    assert bool((leaf.grad[:, -1] == 0).all())
    assert bool((scale.grad != 0).all())


@pytest.mark.parametrize("name", [name for name in WEIGHTS + ACTS if "FixedPoint" in name])
def test_fixed_point_scales_are_powers_of_two_when_they_are_learned(name: str) -> None:
    x = normal(0, 3, 40)
    proxy = weight_proxy(name, x) if "Weight" in name else act_proxy(name, collect_stats_steps=1)
    proxy(x)
    exponent = proxy(x).scale.log2()
    assert torch.equal(exponent, exponent.round())


@pytest.mark.parametrize("name", WEIGHTS + ACTS)
@pytest.mark.parametrize("number", [0.0, 2.0])
def test_constant_tensors_have_a_finite_grid(name: str, number: float) -> None:
    x = torch.full((3, 8), number)
    proxy = weight_proxy(name, x) if "Weight" in name else act_proxy(name, collect_stats_steps=1)
    for _ in range(2):
        out = proxy(x)
        assert bool((torch.isfinite(out.scale) & (out.scale > 0)).all())
        assert bool(torch.isfinite(out.value).all())


@pytest.mark.parametrize("name", ACTS)
def test_the_signs_of_activations(name: str) -> None:
    assert act_proxy(name)(normal(0, 10)).signed == name.startswith("Int8")


@pytest.mark.parametrize("name", ["Int8WeightPerChannelFloatMSE", "Uint8ActPerTensorFloatMSE"])
def test_they_compile_as_one_graph(name: str) -> None:
    torch._dynamo.reset()
    x = normal(0, 4, 30)
    options = {"mse_iters": 3}  # the graph holds each candidate
    eager = weight_proxy(name, x, **options) if "Weight" in name else act_proxy(name, collect_stats_steps=1, **options)
    module = copy.deepcopy(eager)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        assert torch.equal(compiled(x).value, eager(x).value)


def test_a_search_without_candidates_is_refused_by_its_name() -> None:
    with pytest.raises(ConfigurationError) as caught:
        weight_proxy("Int8WeightPerTensorFloatMSE", normal(0, 2, 3), mse_iters=0)
    assert caught.value.what == "mse_iters=0 is not a number of steps"
    assert "weight_scaling_stats_impl of Int8WeightPerTensorFloatMSE" in str(caught.value)


def test_a_weight_that_is_not_finite_is_refused_by_the_name_of_its_layer() -> None:
    with pytest.raises(InputError) as caught:
        weight_proxy("Int8WeightPerTensorFloatMSE", torch.tensor([[1.0, float("inf")]]))
    assert caught.value.what == "the weight has no finite statistic"
    assert "Linear" in str(caught.value.where)
