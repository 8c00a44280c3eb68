"""What every layer goes through, one by one: copies, casts, hooks, modes, transformations. The layers are those of the table."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

import quant_nn as qnn
from quant_core.errors import InputError
from quant_core.tensor import QuantTensor
from quant_nn.samples import SAMPLES, Sample, SampleNet

WEIGHTED = [name for name, sample in SAMPLES.items() if sample.family == "weight"]
BIASED = [name for name in WEIGHTED if SAMPLES[name].layer != "QuantEmbedding"]
FLOAT = [name for name, sample in SAMPLES.items() if sample.float_type is not None]
POOLS = ("TruncAvgPool2d", "TruncAdaptiveAvgPool2d")
every_layer = pytest.mark.parametrize("name", SAMPLES)
plain_or_quantized = pytest.mark.parametrize("quantized", [False, True], ids=["plain", "quantized"])


def net_of(name: str, *, quantized: bool = True) -> SampleNet:
    """A sample that has learned its scales."""
    torch.manual_seed(0)
    net = SampleNet(SAMPLES[name], quantized=quantized)
    for parameter in net.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter)  # biases and factors that start as constants
    for seed in range(2):
        call(net, *SAMPLES[name].inputs(seed))
    return net


def call(net: nn.Module, *inputs: Any) -> Any:
    """A call that draws the same random numbers each time."""
    torch.manual_seed(1)
    return net(*inputs)


def equal(one: Any, other: Any) -> bool:
    return bool(torch.equal(one, other))


def gradients(net: nn.Module, inputs: tuple[Any, ...], model: Callable[..., Any] | None = None) -> list[Tensor]:
    """Those of all parameters and float inputs, for the sum of squares."""
    leaves = [x.clone().requires_grad_() if x.is_floating_point() else x for x in inputs]
    net.zero_grad()
    out = call(net if model is None else model, *leaves)
    if not out.requires_grad:
        return []
    out.square().sum().backward()
    return [t.grad for t in (*net.parameters(), *leaves) if t.grad is not None]


@every_layer
@plain_or_quantized
@pytest.mark.parametrize(
    "make_copy",
    [
        copy.deepcopy,
        lambda net: pickle.loads(pickle.dumps(net)),
        lambda net: torch.load(_saved(net), weights_only=False),
    ],
    ids=["deepcopy", "pickle", "torch.save"],
)
def test_a_copy_computes_the_same_and_goes_its_own_way(
    name: str, quantized: bool, make_copy: Callable[[nn.Module], nn.Module]
) -> None:
    net, inputs = net_of(name, quantized=quantized), SAMPLES[name].inputs(5)
    twin = make_copy(net)
    assert equal(call(twin, *inputs), call(net, *inputs))
    for mine, its in zip(gradients(net, inputs), gradients(twin, inputs), strict=True):
        assert equal(mine, its)
    assert equal(call(twin.eval(), *inputs), call(net.eval(), *inputs))
    assert repr(twin) == repr(net)
    own = {id(parameter) for parameter in net.parameters()}
    assert not any(id(parameter) in own for parameter in twin.parameters())


def _saved(net: nn.Module) -> io.BytesIO:
    buffer = io.BytesIO()
    torch.save(net, buffer)
    buffer.seek(0)
    return buffer


@every_layer
@plain_or_quantized
def test_a_checkpoint_brings_everything_back(name: str, quantized: bool) -> None:
    net, inputs = net_of(name, quantized=quantized), SAMPLES[name].inputs(5)
    other = SampleNet(SAMPLES[name], quantized=quantized)
    other.load_state_dict(net.state_dict(), strict=True)
    assert equal(call(other, *inputs), call(net, *inputs))
    assert equal(call(other.eval(), *inputs), call(net.eval(), *inputs))


@pytest.mark.parametrize("name", FLOAT)
def test_a_float_checkpoint_loads_strictly_and_without_quantizers_the_layer_is_the_float_one(name: str) -> None:
    sample = SAMPLES[name]
    assert sample.float_type is not None
    torch.manual_seed(0)
    bounds = {key: option for key, option in sample.options.items() if key in ("min_val", "max_val")}
    reference = sample.float_type(*sample.args, **bounds)
    off = {"weight": {"weight_quant": None}, "activation": {"act_quant": None}}.get(sample.family, {})
    layer = getattr(qnn, sample.layer)(*sample.args, **bounds, **off)
    layer.load_state_dict(reference.state_dict(), strict=True)
    sample.build().load_state_dict(reference.state_dict(), strict=True)
    inputs = sample.inputs()
    assert equal(call(layer, *inputs), call(reference, *inputs))


@every_layer
def test_the_kind_of_result_is_the_same_in_both_modes(name: str) -> None:
    net = net_of(name)
    taken = [x if net.entry is None else net.entry(x) for x in SAMPLES[name].inputs(5)]
    returned = [net.layer.train(mode)(*([taken] if net.joined else taken)) for mode in (True, False)]
    results = [out[0] if isinstance(out, tuple) else out for out in returned]
    assert isinstance(results[0], QuantTensor)
    for result in results:
        assert isinstance(result, QuantTensor)
        assert result.is_valid
        assert result.training == results[0].training or result.training is False
    first, second = ((x.signed, x.symmetric, x.zero_on_grid, x.bit_width.item(), x.scale.shape) for x in results)
    assert first == second


@every_layer
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_casting_to_another_dtype(name: str, dtype: torch.dtype) -> None:
    net, inputs = net_of(name).eval(), SAMPLES[name].inputs(5)
    expected = call(net, *inputs)
    cast = copy.deepcopy(net).to(dtype)
    if dtype != torch.float64 and (
        SAMPLES[name].layer in POOLS or name == "QuantEltwiseAdd, on the grid of its operands"
    ):
        with pytest.raises(InputError, match=f"{dtype} does not tell the .*sum.* apart"):
            call(cast, *(x.to(dtype) for x in inputs))
        return
    out = call(cast, *(x.to(dtype) if x.is_floating_point() else x for x in inputs))
    assert out.dtype == dtype
    if dtype == torch.float64:
        assert torch.allclose(out.float(), expected, atol=1e-5) or (out.float() - expected).abs().mean() < 1e-2
    else:
        assert (out.float() - expected).abs().mean() <= 0.2 * expected.abs().mean() + 0.05
    assert equal(call(cast.float(), *inputs).isfinite(), torch.ones_like(expected, dtype=torch.bool))


@every_layer
@plain_or_quantized
def test_hooks_see_the_layer_and_change_nothing(name: str, quantized: bool) -> None:
    net, inputs = net_of(name, quantized=quantized), SAMPLES[name].inputs(5)
    expected, expected_gradients = call(net, *inputs), gradients(net, inputs)
    seen: list[str] = []
    net.layer.register_forward_pre_hook(lambda module, args: seen.append("before"))
    net.layer.register_forward_hook(lambda module, args, out: seen.append("after"))
    called_backward = net.entry is None and not net.joined and SAMPLES[name].indices is None
    if called_backward:  # torch calls these for modules that take tensors with a gradient, and return tensors
        net.layer.register_full_backward_hook(lambda module, into, out: seen.append("backward"))
    assert equal(call(net, *inputs), expected)
    assert seen == ["before", "after"]
    for mine, hooked in zip(expected_gradients, gradients(net, inputs), strict=True):
        assert equal(mine, hooked)
    assert ("backward" in seen) is called_backward


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight * 2


@pytest.mark.parametrize(
    ("name", "parameter"),
    [
        (name, parameter)
        for name in WEIGHTED
        for parameter in ("weight", "bias")
        if name in BIASED or parameter == "weight"
    ],
)
def test_parametrized_weights_and_biases(name: str, parameter: str) -> None:
    net, inputs = net_of(name), SAMPLES[name].inputs(5)
    expected = copy.deepcopy(net)
    with torch.no_grad():
        expected.layer.get_parameter(parameter).mul_(2)
    parametrize.register_parametrization(net.layer, parameter, Doubled())
    assert equal(call(net, *inputs), call(expected, *inputs))
    assert equal(call(copy.deepcopy(net).eval(), *inputs), call(expected.eval(), *inputs))
    assert type(net.layer).__name__ in repr(net.layer)
    found = gradients(net, inputs)
    assert found
    assert all(gradient.isfinite().all() for gradient in found)


@pytest.mark.parametrize(
    ("name", "reentrant"),
    # Torch's reentrant checkpointing needs an input with a gradient.
    [
        (name, reentrant)
        for name, sample in SAMPLES.items()
        for reentrant in (False, True)[: 1 + (sample.indices is None)]
    ],
)
def test_gradient_checkpointing(name: str, reentrant: bool) -> None:
    net, inputs = net_of(name), SAMPLES[name].inputs(5)
    expected = gradients(net, inputs)
    found = gradients(net, inputs, lambda *args: checkpoint(net, *args, use_reentrant=reentrant))
    for mine, recomputed in zip(expected, found, strict=True):
        assert equal(mine, recomputed)


@every_layer
@plain_or_quantized
def test_inference_mode(name: str, quantized: bool) -> None:
    net, inputs = net_of(name, quantized=quantized), SAMPLES[name].inputs(5)
    for training in (True, False):
        net.train(training)
        expected = call(net, *inputs)
        with torch.inference_mode():
            out = call(net, *inputs)
        assert equal(out.clone(), expected.detach())
    found = gradients(net.train(), inputs)  # nothing that was made in inference mode is left
    assert all(gradient.isfinite().all() for gradient in found)


@every_layer
@plain_or_quantized
def test_autocast(name: str, quantized: bool) -> None:
    net, inputs = net_of(name, quantized=quantized), SAMPLES[name].inputs(5)
    expected = call(net, *inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = call(net, *inputs)
        found = gradients(net, inputs)
    assert out.isfinite().all()
    assert (out.float() - expected).abs().mean() <= 0.2 * expected.abs().mean() + 0.05
    assert all(gradient.isfinite().all() for gradient in found)


@pytest.mark.parametrize("name", [name for name, sample in SAMPLES.items() if len(sample.shapes[0]) == 4])
@plain_or_quantized
def test_channels_last(name: str, quantized: bool) -> None:
    net, inputs = net_of(name, quantized=quantized), SAMPLES[name].inputs(5)
    expected, expected_gradients = call(net, *inputs), gradients(net, inputs)
    net = net.to(memory_format=torch.channels_last)
    turned = tuple(x.to(memory_format=torch.channels_last) for x in inputs)
    assert torch.allclose(call(net, *turned), expected, atol=1e-5)
    for mine, other in zip(gradients(net, turned), expected_gradients, strict=True):
        assert torch.allclose(mine, other, rtol=1e-3, atol=1e-3)


@every_layer
@plain_or_quantized
def test_functional_call_takes_the_parameters_that_it_is_given(name: str, quantized: bool) -> None:
    net, inputs = net_of(name, quantized=quantized), SAMPLES[name].inputs(5)
    given = {key: parameter.detach() * 1.5 for key, parameter in net.named_parameters()}
    expected = copy.deepcopy(net)
    with torch.no_grad():
        for key, parameter in expected.named_parameters():
            parameter.copy_(given[key])
    torch.manual_seed(1)
    assert equal(torch.func.functional_call(net, given, inputs), call(expected, *inputs))


@every_layer
@plain_or_quantized
def test_on_the_meta_device_there_are_shapes(name: str, quantized: bool) -> None:
    sample = SAMPLES[name]
    expected = net_of(name, quantized=quantized)(*sample.inputs()).shape
    for made in (_made_on_meta(sample, quantized), SampleNet(sample, quantized=quantized).to("meta")):
        out = made.eval()(*(x.to("meta") for x in sample.inputs()))
        assert (out.device.type, out.shape) == ("meta", expected)
        assert sample.layer in repr(made)


def _made_on_meta(sample: Sample, quantized: bool) -> nn.Module:
    with torch.device("meta"):
        return SampleNet(sample, quantized=quantized)


@pytest.mark.parametrize("name", [name for name, sample in SAMPLES.items() if len(sample.shapes) == 1])
def test_in_a_sequential(name: str) -> None:
    net, inputs = net_of(name), SAMPLES[name].inputs(5)
    chain = nn.Sequential(*([] if net.entry is None else [net.entry]), net.layer)
    torch.manual_seed(1)
    out = chain(*inputs)
    assert equal(out.value, call(net, *inputs))
