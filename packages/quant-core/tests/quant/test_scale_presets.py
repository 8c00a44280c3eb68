"""Fixed-point, batch and initialised quantizers by the laws of their scales: copies, graphs, checkpoints, exports."""

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
from quant_core.proxies import ActQuantProxyFromInjector, WeightQuantProxyFromInjector


class Layer(nn.Linear):
    output_channel_dim = 0


FIXED_POINT = [q.Int8WeightPerTensorFixedPoint, q.Int8WeightPerChannelFixedPoint]
ACTIVATIONS = [
    q.Int8ActPerTensorFixedPoint.let(collect_stats_steps=3),
    q.Uint8ActPerTensorFixedPoint.let(collect_stats_steps=3),
    q.Uint8ActPerTensorFixedPointMaxInit.let(max_val=3.0),
    q.Int8ActPerTensorFloatMinMaxInit.let(min_val=-2.0, max_val=3.0),
    q.Int8ActPerTensorFixedPointMinMaxInit.let(min_val=-2.0, max_val=3.0),
    q.Uint8ActPerTensorFloatMaxInit.let(max_val=3.0),
    q.Int8ActPerTensorFloatBatchQuant1d,
    q.Uint8ActPerTensorFloatBatchQuant1d,
    q.Int8ActPerTensorFloatBatchQuant2d.let(scaling_affine_rescaling_init=1.0, scaling_affine_shifting_init=0.0),
    q.Uint8ActPerTensorFloatBatchQuant2d.let(scaling_stats_momentum=0.3),
]
quants = pytest.mark.parametrize("quant", ACTIVATIONS, ids=lambda quant: quant.__mro__[1].__name__)


def tensor(seed: int, *shape: int, scale: float = 1.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def batches() -> list[Tensor]:
    return [tensor(seed, 2, 3, 8, scale=1 + seed) for seed in range(5)]


def activation(quant: Any) -> ActQuantProxyFromInjector:
    return ActQuantProxyFromInjector(nn.Identity(), quant)


def is_power_of_two(scale: Tensor) -> bool:
    return bool((torch.frexp(scale.detach()).mantissa == 0.5).all())


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 999),
    st.sampled_from(FIXED_POINT),
    st.integers(2, 8),
    st.booleans(),
    st.floats(0.001, 1000, width=64),
)
def test_fixed_point_weights_are_shifts_that_clamp_less_than_a_step(
    seed: int, quant: Any, bits: int, narrow: bool, spread: float
) -> None:
    layer = Layer(6, 3)
    with torch.no_grad():
        layer.weight.copy_(tensor(seed, 3, 6, scale=spread))
    proxy = WeightQuantProxyFromInjector(layer, quant.let(bit_width=bits, narrow_range=narrow))
    quantized = proxy(layer.weight)
    assert is_power_of_two(quantized.scale)
    assert quantized.is_valid
    off = (quantized.value - layer.weight).detach().abs() / quantized.scale
    assert bool((off <= 1.0).all())
    # No smaller power of two would hold the largest weight.
    largest = layer.weight.detach().abs().amax(dim=None if proxy.scale().numel() == 1 else 1).reshape(-1)
    assert bool((largest > quantized.scale.detach().reshape(-1) * 2 ** (bits - 2) * (1 - 1e-6)).all())


@quants
def test_a_step_lies_on_its_grid_in_training_and_in_eval_mode(quant: Any) -> None:
    proxy = activation(quant)
    for batch in batches():
        assert proxy(batch).is_valid
    proxy.eval()
    quantized = proxy(batches()[0])
    assert quantized.is_valid
    assert torch.equal(quantized.scale, proxy.scale())
    if "FixedPoint" in quant.__mro__[1].__name__ or "FixedPoint" in quant.__mro__[0].__name__:
        assert is_power_of_two(quantized.scale)


@quants
@pytest.mark.parametrize("stop", [0, 1, 4])
def test_training_resumes_from_a_checkpoint_to_the_bit(quant: Any, stop: int) -> None:
    straight, resumed = activation(quant), activation(quant)
    for batch in batches()[:stop]:
        straight(batch)
    file = io.BytesIO()
    torch.save(straight.state_dict(), file)
    file.seek(0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for batch in batches():
        assert torch.equal(straight(batch).value, resumed(batch).value)
    assert torch.equal(straight.scale(), resumed.scale())


@quants
def test_copies_pickles_graphs_and_programs_compute_the_same(quant: Any) -> None:
    torch._dynamo.reset()
    proxy = activation(quant)
    for batch in batches():
        proxy(batch)
    compiled = torch.compile(copy.deepcopy(proxy), fullgraph=True, backend="aot_eager")
    pickled = pickle.loads(pickle.dumps(proxy))
    for batch in batches():
        wanted = proxy(batch)
        assert torch.equal(pickled(batch).value, wanted.value)
        torch.testing.assert_close(compiled(batch).value, wanted.value)
    x = batches()[1]
    wanted = proxy.eval()(x).value
    program = torch.export.export(proxy, (x,)).module()
    torch.testing.assert_close(program(x).value, wanted)


@quants
def test_the_gradient_reaches_what_is_learned(quant: Any) -> None:
    proxy = activation(quant)
    for batch in batches():
        proxy.zero_grad()
        x = batch.clone().requires_grad_()
        proxy(x).value.backward(tensor(9, *x.shape))
        assert torch.isfinite(x.grad).all()
    for parameter in proxy.parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()
        assert parameter.grad.abs().sum() > 0


def test_a_scale_from_given_limits_holds_both() -> None:
    one = activation(q.Int8ActPerTensorFloatMinMaxInit.let(min_val=-2.0, max_val=3.0))
    assert torch.equal(one(torch.tensor([-2.0, 3.0, -3.0])).int(), torch.tensor([-85, 127, -128], dtype=torch.int8))
    other = activation(q.Uint8ActPerTensorFloatMaxInit.let(max_val=3.0))
    assert torch.equal(other(torch.tensor([-2.0, 3.0, 9.0])).int(), torch.tensor([0, 255, 255], dtype=torch.uint8))
    per_channel = q.Uint8ActPerTensorFloatMaxInit.let(
        max_val=3.0, scaling_per_output_channel=True, per_channel_broadcastable_shape=(1, 3, 1)
    )
    assert activation(per_channel)(batches()[0]).scale.shape == (1, 3, 1)
