"""Named quantizers with a zero-point, as a layer builds them."""

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import quant_core.quant as q
from quant_core.components import ConstScaling, PerGroup
from quant_core.errors import InputError, UnusedAttributeError
from quant_core.inject import Injector
from quant_core.proxies import QuantProxy, WeightQuantProxyFromInjector

WEIGHTS = [name for name in q.__all__ if name.startswith("ShiftedUint8Weight")]
ACTS = [name for name in q.__all__ if name.startswith("ShiftedUint8Act")]


def normal(seed: int, *shape: int, shift: float = 0.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + shift


def layer_of(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.output_channel_dim = 0
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer


def weight_quantizer(name: str, **options: Any) -> type[Injector]:
    groups = {"group_size": 2} if "Group" in name else {}
    quantizer: type[Injector] = getattr(q, name).let(**groups, **options)
    return quantizer


def weight_proxy(name: str, weight: Tensor, **options: Any) -> QuantProxy:
    return WeightQuantProxyFromInjector(layer_of(weight), weight_quantizer(name, **options), "weight_")


def act_proxy(name: str, **options: Any) -> QuantProxy:
    quant = getattr(q, name).let(**options)
    return quant.proxy_class(nn.Identity(), quant)


@settings(deadline=None, max_examples=12)
@given(st.sampled_from(WEIGHTS), st.integers(0, 10_000), st.integers(2, 8), st.sampled_from([-3.0, 0.0, 0.4, 3.0]))
def test_weights_lie_on_an_unsigned_grid_within_a_step(name: str, seed: int, bits: int, shift: float) -> None:
    weight = normal(seed, 3, 40, shift=shift)
    out = weight_proxy(name, weight, bit_width=bits)(weight)
    assert out.is_valid
    assert not out.signed
    assert not out.symmetric
    assert out.scale.shape == ((3, 40) if "Group" in name else (3, 1) if "Channel" in name else ())
    assert out.zero_on_grid == ("HQO" not in name)
    if out.zero_on_grid:
        assert bool((out.zero_point == out.zero_point.round()).all())
    if "MSE" not in name and "HQO" not in name:
        assert bool(((out.value - weight).abs() <= out.scale * 1.001).all())


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("number", [0.0, -2.0, 2.0])
def test_constant_weights_have_a_finite_grid(name: str, number: float) -> None:
    weight = torch.full((3, 8), number)
    out = weight_proxy(name, weight)(weight)
    assert bool(torch.isfinite(out.scale).all())
    assert bool((out.scale > 0).all())
    assert bool(torch.isfinite(out.zero_point).all())
    torch.testing.assert_close(out.value, weight, rtol=0.06, atol=1e-6)


@settings(deadline=None, max_examples=12)
@given(st.sampled_from(ACTS), st.integers(0, 10_000), st.integers(2, 8), st.sampled_from([-3.0, 0.0, 3.0]))
def test_activations_lie_on_an_unsigned_grid_while_collecting_and_afterwards(
    name: str, seed: int, bits: int, shift: float
) -> None:
    proxy = act_proxy(name, bit_width=bits, collect_stats_steps=2)
    for step in range(3):
        out = proxy(normal(seed + step, 200, shift=shift))
        assert out.is_valid, step
        assert not out.signed
        assert out.zero_on_grid == ("HQO" not in name)
    assert proxy.eval()(torch.zeros(3)).value.abs().max() <= out.scale * (0 if out.zero_on_grid else 1)


@pytest.mark.parametrize("name", ACTS)
@pytest.mark.parametrize("x", [torch.zeros(8), torch.full((8,), -2.0), torch.full((8,), 2.0)], ids=["0", "-2", "2"])
def test_constant_activations_have_a_finite_grid(name: str, x: Tensor) -> None:
    proxy = act_proxy(name, collect_stats_steps=1)
    for out in (proxy(x), proxy(x)):
        assert torch.isfinite(out.scale)
        assert out.scale > 0
        assert torch.isfinite(out.zero_point)
        torch.testing.assert_close(out.value, x, rtol=0.06, atol=1e-6)


@pytest.mark.parametrize("name", WEIGHTS + ACTS)
def test_every_one_trains_copies_and_pickles(name: str) -> None:
    x = normal(0, 4, 30, shift=0.3)
    proxy = weight_proxy(name, x) if "Weight" in name else act_proxy(name, collect_stats_steps=1)
    for _ in range(2):
        leaf = x.clone().requires_grad_()
        proxy(leaf).value.square().sum().backward()
        assert torch.isfinite(leaf.grad).all()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in proxy.parameters())
    wanted = proxy(x)
    for twin in (copy.deepcopy(proxy), pickle.loads(pickle.dumps(proxy))):
        out = twin(x)
        assert torch.equal(out.value, wanted.value)
        assert torch.equal(out.zero_point, wanted.zero_point)


@pytest.mark.parametrize("name", WEIGHTS + ACTS)
def test_every_one_compiles_as_one_graph(name: str) -> None:
    torch._dynamo.reset()
    x = normal(0, 4, 30)
    options = {"mse_iters": 2} if "MSE" in name else {}  # the graph holds each candidate
    eager = weight_proxy(name, x, **options) if "Weight" in name else act_proxy(name, collect_stats_steps=1, **options)
    module = copy.deepcopy(eager)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        ours, theirs = compiled(x), eager(x)
        assert torch.equal(ours.value, theirs.value)
        assert torch.equal(ours.zero_point, theirs.zero_point)


@pytest.mark.parametrize("name", ACTS)
@pytest.mark.parametrize("stop", range(4))
def test_training_resumes_at_any_step(name: str, stop: int) -> None:
    batches = [normal(seed, 50, shift=0.1 * seed) for seed in range(4)]
    straight = act_proxy(name, collect_stats_steps=2)
    for batch in batches[:stop]:
        straight(batch)
    file = io.BytesIO()
    torch.save(straight.state_dict(), file)
    file.seek(0)
    resumed = act_proxy(name, collect_stats_steps=2)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for batch in batches:
        assert torch.equal(straight(batch).value, resumed(batch).value)


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_float_checkpoint_starts_the_grid_from_its_weight(name: str) -> None:
    class Net(nn.Linear):
        output_channel_dim = 0

        def __init__(self) -> None:
            super().__init__(30, 3)
            self.weight_quant = WeightQuantProxyFromInjector(self, weight_quantizer(name), "weight_")

    weight = normal(0, 3, 30, shift=0.5)
    net = Net()
    net.load_state_dict(layer_of(weight).state_dict())
    wanted = weight_proxy(name, weight)
    assert torch.equal(net.weight_quant.scale(), wanted.scale())
    assert torch.equal(net.weight_quant.zero_point(), wanted.zero_point())


@pytest.mark.parametrize("name", WEIGHTS + ACTS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_half_and_double_precision(name: str, dtype: torch.dtype) -> None:
    """The value has the dtype of the tensor; scale and zero-point have at least float32. All of 7 bits fits into bfloat16."""
    x = normal(0, 4, 30, shift=0.3).to(dtype)
    proxy = weight_proxy(name, x, bit_width=7).to(dtype) if "Weight" in name else act_proxy(name, collect_stats_steps=1)
    for _ in range(2):
        leaf = x.clone().requires_grad_()
        out = proxy(leaf)
        out.value.sum().backward()
        assert out.value.dtype == leaf.grad.dtype == dtype
        assert out.scale.dtype in (torch.float32, torch.float64)
        assert out.zero_point.dtype in (torch.float32, torch.float64)
        assert out.is_valid


@pytest.mark.parametrize("name", [name for name in WEIGHTS if "Tensor" in name])
def test_per_group_is_per_tensor_on_each_group(name: str) -> None:
    weight = normal(0, 2, 20, shift=0.3)
    out = weight_proxy(name, weight, granularity=PerGroup(10))(weight)
    if "HQO" in name:  # stops for all groups together
        assert out.is_valid
        return
    for part, value, zero_point in (
        (w.flatten(), v.flatten(), z.flatten())
        for w, v, z in zip(
            weight.reshape(4, 1, 10), out.value.reshape(4, 1, 10), out.zero_point.reshape(4, 1, 10), strict=True
        )
    ):
        alone = weight_proxy(name, part.unsqueeze(0))(part.unsqueeze(0))
        assert torch.equal(alone.value.flatten(), value)
        assert bool((zero_point == alone.zero_point).all())


def test_the_grid_is_told_by_its_origin_only_when_nothing_of_it_is_computed_from_the_tensor() -> None:
    x = normal(0, 50)
    constant = {"scaling_impl": ConstScaling, "scaling_init": 1.0}
    proxy = act_proxy("ShiftedUint8ActPerTensorFloat", collect_stats_steps=2, **constant)
    origins = [proxy(x).origin for _ in range(3)]
    assert origins[0] is None
    assert origins[2] is not None


def test_an_option_that_this_zero_point_does_not_read_is_refused() -> None:
    with pytest.raises(UnusedAttributeError) as caught:
        act_proxy("ShiftedUint8ActPerTensorFloatHQO", zero_point_init=1.0)
    assert str(caught.value) == (
        "unknown option 'zero_point_init'\n"
        "  at Identity\n"
        "  nothing in ShiftedUint8ActPerTensorFloatHQO reads 'zero_point_init'\n"
        "  Did you mean 'zero_point_impl'?"
    )


def test_an_empty_weight_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        weight_proxy("ShiftedUint8WeightPerTensorFloat", torch.zeros(1, 2))(torch.zeros(0, 2))
    assert str(caught.value).startswith("a tensor of shape (0, 2) has no statistic")
