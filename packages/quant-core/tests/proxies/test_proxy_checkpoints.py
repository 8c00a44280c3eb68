"""What a checkpoint does to quantizers: of the float model, of the model itself, and with parts missing."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from io import BytesIO

import pytest
import torch
from torch import Tensor, nn

from quant_core.components import BinaryQuant, ParameterScaling
from quant_core.inject import Injector, value
from quant_core.proxies import ActQuantProxyFromInjector, QuantProxy, WeightQuantProxyFromInjector
from quant_core.quant import Int8ActPerTensorFloat, Int8WeightPerTensorFloat


class LearnedMax(Injector):
    """Binary, with a learned scale that starts from the largest weight, after one step in float."""

    tensor_quant = BinaryQuant
    scaling_impl = ParameterScaling
    quant_delay_steps = 1

    @value
    def scaling_init(module: nn.Module) -> Tensor:
        return module.weight.abs().max()


class Network(nn.Linear):
    """Quantizes its weight and its result."""

    output_channel_dim = 0

    def __init__(self) -> None:
        super().__init__(3, 2)
        self.weight_quant = WeightQuantProxyFromInjector(self, LearnedMax)
        self.output_quant = ActQuantProxyFromInjector(self, Int8ActPerTensorFloat.let(collect_stats_steps=3))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.output_quant(nn.functional.linear(x, self.weight_quant(self.weight).value, self.bias)).value
        return out


LEARNED = "weight_quant.tensor_quant.scaling_impl.value"


def trained(steps: int = 2) -> Network:
    torch.manual_seed(0)
    network = Network()
    for _ in range(steps):
        network(torch.randn(4, 3))
    with torch.no_grad():
        network.get_parameter(LEARNED).fill_(0.25)
    return network


def test_a_float_checkpoint_loads_strictly_and_starts_weight_quantizers_anew() -> None:
    network, plain = trained(), nn.Linear(3, 2)
    given = plain.state_dict()
    assert not any(network.load_state_dict(given, strict=True))
    assert list(given) == ["weight", "bias"]
    assert torch.equal(network.weight, plain.weight)
    assert torch.equal(network.weight_quant.scale(), plain.weight.abs().max())


def test_a_float_checkpoint_leaves_activation_quantizers_as_they_are() -> None:
    network = trained()
    built = network.output_quant.tensor_quant
    before = {name: tensor.clone() for name, tensor in network.output_quant.state_dict().items()}
    assert before["tensor_quant.scaling_impl.collected.count"] == 2
    network.load_state_dict(nn.Linear(3, 2).state_dict())
    assert network.output_quant.tensor_quant is built
    after = network.output_quant.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_only_weight_quantizers_are_built_again() -> None:
    network = trained()
    weight, output = network.weight_quant.tensor_quant, network.output_quant.tensor_quant
    network.load_state_dict(network.state_dict())
    assert network.weight_quant.tensor_quant is not weight
    assert network.output_quant.tensor_quant is output


def test_its_own_checkpoint_brings_back_what_was_learned() -> None:
    network, other = trained(), Network()
    other.load_state_dict(network.state_dict(), strict=True)
    assert other.weight_quant.scale().item() == 0.25
    for _ in range(3):  # collecting statistics goes on where it stood
        x = torch.randn(4, 3)
        assert torch.equal(other(x), network(x))
    assert torch.equal(other.eval()(x), network.eval()(x))


def test_loading_keeps_the_identity_of_parameters() -> None:
    network = trained()
    before = dict(network.named_parameters())
    network.load_state_dict(nn.Linear(3, 2).state_dict())
    network.load_state_dict(trained().state_dict())
    assert all(parameter is before[name] for name, parameter in network.named_parameters())


@pytest.mark.parametrize(
    "missing", [LEARNED, "weight_quant.tensor_quant.delay.passed.count", "output_quant.tensor_quant.scaling_impl.value"]
)
def test_a_checkpoint_with_a_part_of_a_quantizer_is_not_loaded_strictly(missing: str) -> None:
    state = trained().state_dict()
    del state[missing]
    with pytest.raises(RuntimeError) as caught:
        Network().load_state_dict(state)
    assert str(caught.value) == (
        f'Error(s) in loading state_dict for Network:\n\tMissing key(s) in state_dict: "{missing}". '
    )
    found = Network().load_state_dict(state, strict=False)
    assert (found.missing_keys, found.unexpected_keys) == ([missing], [])


def test_a_key_that_no_quantizer_has_is_not_loaded_strictly() -> None:
    state = {**trained().state_dict(), "weight_quant.tensor_quant.offset": torch.zeros(())}
    with pytest.raises(RuntimeError) as caught:
        Network().load_state_dict(state)
    assert str(caught.value) == (
        "Error(s) in loading state_dict for Network:\n"
        '\tUnexpected key(s) in state_dict: "weight_quant.tensor_quant.offset". '
    )


def test_a_layer_that_shares_its_proxy_is_rebuilt_from_all_loaded_weights(weighted: Callable[..., nn.Module]) -> None:
    first = weighted()
    net = nn.Sequential(first, weighted(first.weight_quant, (2, 4)))
    plain = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 4))
    net.load_state_dict(plain.state_dict(), strict=True)
    largest = max(layer.weight.abs().max().item() for layer in plain)
    assert first.weight_quant.scale().item() == pytest.approx(largest / 127)


def by_file(network: Network) -> Network:
    file = BytesIO()
    torch.save(network, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network)), by_file],
    ids=["deepcopy", "pickle", "file"],
)
def test_a_copy_computes_the_same_and_stands_alone(duplicate: Callable[[Network], Network]) -> None:
    network = trained()
    twin = duplicate(network)
    x = torch.randn(4, 3)
    assert torch.equal(twin(x), network(x))
    assert twin.weight_quant.owners == (twin,)
    assert {p.data_ptr() for p in twin.parameters()}.isdisjoint(p.data_ptr() for p in network.parameters())
    with torch.no_grad():
        twin.weight.fill_(3.0)
    twin.weight_quant.init_tensor_quant()
    assert (twin.weight_quant.scale().item(), network.weight_quant.scale().item()) == (3.0, 0.25)


def test_layers_that_share_a_proxy_share_one_in_the_copy(weighted: Callable[..., nn.Module]) -> None:
    first = weighted(Int8WeightPerTensorFloat)
    twin = copy.deepcopy(nn.Sequential(first, weighted(first.weight_quant, (2, 4))))
    proxy: QuantProxy = twin[0].weight_quant
    assert proxy is twin[1].weight_quant
    assert proxy.owners == (twin[0], twin[1])
    with torch.no_grad():
        twin[1].weight.fill_(12.7)
    assert proxy(twin[0].weight).scale.item() == pytest.approx(0.1)
