"""The state of every registered quantizer, in a layer: pickles, copies, checkpoints while it collects, float checkpoints.

The quantizers come from the registry, so that one that is added is held to the same.
"""

from __future__ import annotations

import copy
import logging
import pickle
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.components import ParameterScaling
from quant_core.errors import UnusedAttributeError
from quant_core.inject import value
from quant_core.plugins import load_attribute, registry
from quant_core.proxies import ClampQuantProxyFromInjector, QuantProxy, TruncQuantProxyFromInjector
from quant_core.quant import Int8ActPerTensorFloat, Int8WeightPerTensorFloat, Int32Bias
from quant_core.tensor import QuantTensor

QUANTIZERS = {name: load_attribute(found.item.quantizer) for name, found in registry().quantizers.items()}
NEEDED: dict[str, dict[str, Any]] = {
    "IntBias": {"bit_width": 8},
    "Int8ActPerTensorFloatMinMaxInit": {"min_val": -1.0, "max_val": 2.0},
    "Int8ActPerTensorFixedPointMinMaxInit": {"min_val": -1.0, "max_val": 2.0},
    "Uint8ActPerTensorFloatMaxInit": {"max_val": 2.0},
    "Uint8ActPerTensorFixedPointMaxInit": {"max_val": 2.0},
    "ShiftedUint8WeightGroupQuantFloat": {"group_size": 3},
    "ShiftedUint8WeightPerGroupFloatHQO": {"group_size": 3},
}
"""The options that some of them need."""

STEPS = 3
"""How many steps those that collect statistics collect."""

INPUT = Int8ActPerTensorFloat.let(collect_stats_steps=STEPS)

every_quantizer = pytest.mark.parametrize("name", QUANTIZERS)


class Network(nn.Module):
    """A float layer, one with the quantizer, and its accumulator if that is what is quantized; on images of 3 channels."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 1)
        self.second = layer_with(name)
        self.third = accumulator_with(name)

    def forward(self, x: Tensor) -> Tensor:
        out = self.third(self.second(self.first(x)))
        return out.value if isinstance(out, QuantTensor) else out


def layer_with(name: str) -> nn.Module:
    quantizer = QUANTIZERS[name]
    kind = quantizer.proxy_class.kind
    options = options_of(name)
    if kind == "activation":
        return qnn.QuantIdentity(act_quant=quantizer, **options)
    if kind == "accumulator":
        return qnn.QuantConv2d(3, 4, 3, input_quant=INPUT, bias_quant=Int32Bias, return_quant_tensor=True)
    if kind == "weight":
        prefixed = {f"weight_{key}": option for key, option in options.items()}
        return qnn.QuantConv2d(3, 4, 3, weight_quant=quantizer, input_quant=INPUT, **prefixed)
    return qnn.QuantConv2d(
        3,
        4,
        3,
        weight_quant=Int8WeightPerTensorFloat,
        input_quant=INPUT,
        bias_quant=quantizer,
        **{f"bias_{key}": option for key, option in options.items()},
    )


def accumulator_with(name: str) -> nn.Module:
    quantizer = QUANTIZERS[name]
    if issubclass(quantizer.proxy_class, TruncQuantProxyFromInjector):
        steps = {"collect_stats_steps": STEPS} if "collect_stats_steps" in quantizer else {}
        return qnn.TruncQuantAccumulator(trunc_quant=quantizer.let(**steps))
    if issubclass(quantizer.proxy_class, ClampQuantProxyFromInjector):
        return qnn.ClampQuantAccumulator(clamp_quant=quantizer)
    return nn.Identity()


def options_of(name: str) -> dict[str, Any]:
    """The options that a quantizer needs, and few steps where it collects statistics."""
    needed = NEEDED.get(name, {})
    quantizer = QUANTIZERS[name]
    if quantizer.proxy_class.kind != "activation":
        return needed
    try:
        qnn.QuantIdentity(act_quant=quantizer, collect_stats_steps=STEPS, **needed)
    except UnusedAttributeError:
        return needed
    return {"collect_stats_steps": STEPS, **needed}


def network(name: str, seed: int = 0) -> Network:
    torch.manual_seed(seed)
    return Network(name)


def proxy_of(net: Network, name: str) -> QuantProxy:
    kind = QUANTIZERS[name].proxy_class.kind
    found = [module for module in net.modules() if isinstance(module, QuantProxy) and module.kind == kind]
    return found[-1]


def train(net: nn.Module, steps: int, seed: int, optimizer: torch.optim.Optimizer | None = None) -> list[Tensor]:
    """Steps of training on data of a seed; the outputs."""
    optimizer = optimizer or torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    data = torch.Generator().manual_seed(seed)
    outputs = []
    for _ in range(steps):
        out = net(torch.randn(4, 3, 5, 5, generator=data))
        optimizer.zero_grad()
        out.square().mean().backward()
        optimizer.step()
        outputs.append(out.detach())
    return outputs


def by_file(item: Any) -> Any:
    file = BytesIO()
    torch.save(item, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def assert_equal_states(one: nn.Module, other: nn.Module) -> None:
    first, second = one.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_every_registered_quantizer_is_covered() -> None:
    kinds = {name: quantizer.proxy_class.kind for name, quantizer in QUANTIZERS.items()}
    assert set(kinds.values()) <= {"weight", "activation", "bias", "accumulator"}
    assert len(kinds) >= 50


@pytest.mark.parametrize("name", QUANTIZERS)
def test_the_class_pickles_and_copies_as_itself(name: str) -> None:
    quantizer = QUANTIZERS[name]
    assert pickle.loads(pickle.dumps(quantizer)) is quantizer
    assert copy.deepcopy(quantizer) is quantizer
    changed = quantizer.let(quant_delay_steps=3)
    assert pickle.loads(pickle.dumps(changed)).quant_delay_steps == 3


@every_quantizer
@pytest.mark.parametrize("twin", [copy.deepcopy, by_file], ids=["deepcopy", "pickle"])
def test_a_copy_of_a_layer_computes_and_trains_the_same(name: str, twin: Callable[[Network], Network]) -> None:
    net = network(name)
    train(net, 2, seed=1)
    other = twin(net)
    for one, two in zip(train(net, STEPS, seed=2), train(other, STEPS, seed=2), strict=True):
        assert torch.equal(one, two)
    x = torch.randn(2, 3, 5, 5)
    assert torch.equal(net.eval()(x), other.eval()(x))
    assert_equal_states(net, other)


@every_quantizer
@pytest.mark.parametrize("before", [1, STEPS + 1], ids=["while collecting", "afterwards"])
def test_training_resumes_from_a_checkpoint_at_any_step(name: str, before: int) -> None:
    net = network(name)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    train(net, before, seed=1, optimizer=optimizer)
    saved = by_file({"model": net.state_dict(), "optimizer": optimizer.state_dict()})
    resumed = network(name, seed=7)
    assert not any(resumed.load_state_dict(saved["model"], strict=True))
    other = torch.optim.SGD(resumed.parameters(), lr=0.05, momentum=0.9)
    other.load_state_dict(saved["optimizer"])
    assert_equal_states(net, resumed)
    after = [train(one, STEPS, seed=2, optimizer=of) for one, of in ((net, optimizer), (resumed, other))]
    assert all(torch.equal(one, two) for one, two in zip(*after, strict=True))
    assert_equal_states(net, resumed)


@every_quantizer
@pytest.mark.parametrize("steps", [1, STEPS + 2])
def test_loading_its_own_checkpoint_changes_nothing(name: str, steps: int) -> None:
    net = network(name)
    train(net, steps, seed=1)
    x = torch.randn(2, 3, 5, 5)
    before = copy.deepcopy(net)
    net.load_state_dict(net.state_dict())
    assert_equal_states(before, net)
    assert torch.equal(before.eval()(x), net.eval()(x))


@every_quantizer
def test_a_float_checkpoint_loads_strictly_and_weight_quantizers_start_from_its_weights(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(3)
    trained, float_layer = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 4, 3)
    plain = {f"first.{key}": tensor for key, tensor in trained.state_dict().items()}
    if QUANTIZERS[name].proxy_class.kind != "activation":
        plain |= {f"second.{key}": tensor for key, tensor in float_layer.state_dict().items()}
    net = network(name)
    with caplog.at_level(logging.INFO, logger="quant_core"):
        assert not any(net.load_state_dict(plain, strict=True))
    keys = [key for key in net.state_dict() if key not in plain]
    assert [record.getMessage() for record in caplog.records] == (
        [f"the checkpoint has no {keys[0]}: taken for that of a float model, from whose weights quantizers start anew"]
        if keys
        else []
    )
    state = net.state_dict()
    assert all(torch.equal(state[key], tensor) for key, tensor in plain.items())
    rebuilt = copy.deepcopy(net)
    proxy_of(rebuilt, name).init_tensor_quant()
    assert_equal_states(net, rebuilt)


@every_quantizer
def test_a_checkpoint_that_lacks_a_part_is_an_error_that_names_it(name: str) -> None:
    net = network(name)
    state = net.state_dict()
    keys = [key for key in state if "quant." in key]
    for missing in keys if len(keys) > 1 else []:
        kept = {key: tensor for key, tensor in state.items() if key != missing}
        with pytest.raises(RuntimeError) as caught:
            network(name).load_state_dict(kept)
        assert str(caught.value) == (
            f'Error(s) in loading state_dict for Network:\n\tMissing key(s) in state_dict: "{missing}". '
        )


def test_a_model_with_many_quantizers_says_in_one_line_that_they_start_anew(caplog: pytest.LogCaptureFixture) -> None:
    net = nn.Sequential(qnn.QuantIdentity(), qnn.QuantLinear(4, 4, input_quant=Int8ActPerTensorFloat), qnn.QuantReLU())
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="quant_core"):
            net.load_state_dict({f"1.{key}": tensor for key, tensor in nn.Linear(4, 4).state_dict().items()})
        assert len(caplog.records) == 1
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="quant_core"):
        net.load_state_dict(net.state_dict())
    assert caplog.records == []


@pytest.mark.parametrize("left_out", ["0.act_quant.", "2.act_quant."], ids=["the first", "the last"])
def test_a_checkpoint_with_some_quantizers_and_without_others_is_an_error_that_names_them(left_out: str) -> None:
    net = nn.Sequential(qnn.QuantIdentity(), nn.Linear(4, 4), qnn.QuantReLU())
    state = {key: tensor for key, tensor in net.state_dict().items() if not key.startswith(left_out)}
    with pytest.raises(RuntimeError) as caught:
        net.load_state_dict(state)
    names = [f'"{key}"' for key in net.state_dict() if key.startswith(left_out)]
    assert len(names) >= 2
    assert str(caught.value) == (
        f"Error(s) in loading state_dict for Sequential:\n\tMissing key(s) in state_dict: {', '.join(names)}. "
    )


class LearnedFromWeights(Int8WeightPerTensorFloat):
    """A learned scale that starts from the largest weight of all layers that share it."""

    scaling_impl = ParameterScaling

    @value
    def scaling_init(module: Any) -> Tensor:
        layers = module if isinstance(module, tuple) else (module,)
        return torch.stack([layer.weight.abs().max() for layer in layers]).max()


def test_loading_the_live_state_of_a_shared_quantizer_keeps_what_was_learned() -> None:
    first = qnn.QuantLinear(4, 4, weight_quant=LearnedFromWeights)
    net = nn.Sequential(first, qnn.QuantLinear(4, 4, weight_quant=first.weight_quant))
    with torch.no_grad():
        first.weight_quant.tensor_quant.scaling_impl.value.fill_(0.25)
    net.load_state_dict(net.state_dict())
    assert first.weight_quant.tensor_quant.scaling_impl.value.item() == 0.25
