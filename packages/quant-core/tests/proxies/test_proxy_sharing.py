"""Several layers that share one proxy, and building it again."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from quant_core.components import BinaryQuant, ParameterScaling, Scaling
from quant_core.errors import ConfigurationError
from quant_core.inject import Injector, value
from quant_core.quant import Int8WeightPerChannelFloat, Int8WeightPerTensorFloat

Layer = Callable[..., nn.Module]


class LearnedMax(Injector):
    """Binary, with a learned scale that starts from the largest weight of all owners."""

    tensor_quant = BinaryQuant
    scaling_impl = ParameterScaling

    @value
    def scaling_init(module: nn.Module | tuple[nn.Module, ...]) -> Tensor:
        layers = module if isinstance(module, tuple) else (module,)
        return torch.stack([layer.weight.abs().max() for layer in layers]).max()


class PerRow(LearnedMax):
    """As above, with one scale for each row of the weight."""

    @value
    def scaling_init(module: nn.Module | tuple[nn.Module, ...]) -> Tensor:
        layers = module if isinstance(module, tuple) else (module,)
        return torch.stack([layer.weight.abs().amax(dim=1, keepdim=True) for layer in layers]).amax(dim=0)


def largest(*layers: nn.Module) -> Tensor:
    return torch.cat([layer.weight.flatten() for layer in layers]).abs().max()


def test_a_statistic_is_one_over_the_weights_of_all_owners(weighted: Layer) -> None:
    first = weighted()
    second = weighted(first.weight_quant, (5, 4))
    assert first.weight_quant.owners == (first, second)
    for factor in (1.0, 3.0, 0.1):
        with torch.no_grad():
            second.weight.mul_(factor)
        scale = largest(first, second) / 127
        for layer in (first, second):
            assert torch.equal(layer.weight_quant(layer.weight).scale, scale)


def test_a_statistic_per_channel_is_one_over_the_same_channel_of_all_owners(weighted: Layer) -> None:
    first = weighted(Int8WeightPerChannelFloat)
    second = weighted(first.weight_quant, (5, 2))
    rows = torch.cat([first.weight, second.weight], dim=1)
    assert torch.equal(first.weight_quant.scale(), rows.abs().amax(dim=1, keepdim=True) / 127)


def test_the_gradient_of_a_shared_scale_reaches_the_weight_that_holds_the_largest_element(weighted: Layer) -> None:
    first = weighted()
    second = weighted(first.weight_quant)
    with torch.no_grad():
        second.weight.mul_(10)
    first.weight_quant(first.weight).scale.backward()
    assert first.weight.grad is None or not first.weight.grad.any()
    assert second.weight.grad.count_nonzero() == 1


def test_a_learned_scale_is_built_again_for_all_owners(weighted: Layer) -> None:
    first = weighted(LearnedMax)
    assert torch.equal(first.weight_quant.scale(), largest(first))
    second = weighted(first.weight_quant, (50, 4))
    third = weighted(first.weight_quant, (3, 4))
    with torch.no_grad():
        third.weight.fill_(2.0)
    first.weight_quant.init_tensor_quant()
    assert torch.equal(second.weight_quant.scale(), largest(first, second, third))


def test_an_owner_joins_once(weighted: Layer) -> None:
    layer = weighted(LearnedMax)
    built = layer.weight_quant.tensor_quant
    layer.weight_quant.add_owner(layer)
    assert layer.weight_quant.owners == (layer,)
    assert layer.weight_quant.tensor_quant is built


def test_a_layer_that_cannot_join_leaves_the_proxy_as_it_was(weighted: Layer) -> None:
    layer = weighted(PerRow)
    built, scale = layer.weight_quant.tensor_quant, layer.weight_quant.scale().clone()
    with pytest.raises(RuntimeError, match="stack expects each tensor to be equal size"):
        weighted(layer.weight_quant, (3, 5))
    assert layer.weight_quant.owners == (layer,)
    assert layer.weight_quant.tensor_quant is built
    layer.weight_quant.init_tensor_quant()
    assert torch.equal(layer.weight_quant.scale(), scale)


def test_different_numbers_of_channels_cannot_share_one_scale_each(weighted: Layer) -> None:
    layer = weighted(Int8WeightPerChannelFloat)
    weighted(layer.weight_quant, (3, 5))
    with pytest.raises(ConfigurationError) as caught:
        nn.Sequential(nn.Identity(), layer)(torch.zeros(1, 3))
    assert str(caught.value) == (
        "layers with different numbers of channels cannot share a per-channel weight quantizer\n"
        "  at 1 (WeightedLayer)\n"
        "  their weights have the shapes [(2, 3), (5, 3)]\n"
        "  Share a per-tensor quantizer, or give each layer its own."
    )


def test_shared_parameters_are_listed_once(weighted: Layer) -> None:
    first = weighted(LearnedMax)
    net = nn.Sequential(first, weighted(first.weight_quant, (2, 3)))
    assert [name for name, _ in net.named_parameters()] == [
        "0.weight",
        "0.bias",
        "0.weight_quant.tensor_quant.scaling_impl.value",
        "1.weight",
        "1.bias",
    ]


def test_an_optimizer_goes_on_training_what_was_built_again(weighted: Layer) -> None:
    layer = weighted(LearnedMax)
    parameter = layer.weight_quant.tensor_quant.scaling_impl.value
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    nn.init.uniform_(layer.weight, 1.0, 2.0)
    layer.weight_quant.init_tensor_quant()
    assert layer.weight_quant.tensor_quant.scaling_impl.value is parameter
    assert torch.equal(parameter, largest(layer))
    before = layer.weight_quant.scale().item()
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert layer.weight_quant.scale().item() != before


def test_a_parameter_of_another_shape_is_a_new_one(weighted: Layer) -> None:
    layer = weighted(LearnedMax)
    parameter = layer.weight_quant.tensor_quant.scaling_impl.value
    layer.weight_quant.quant_injector = PerRow
    layer.weight_quant.init_tensor_quant()
    assert layer.weight_quant.tensor_quant.scaling_impl.value is not parameter
    assert layer.weight_quant.scale().shape == (2, 1)


class TiedScaling(Scaling):
    """One learned parameter under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(0.5))
        self.again = self.value

    def forward(self, x: Tensor) -> Tensor:
        return (self.value + self.again) / 2


def test_tied_parameters_stay_tied(weighted: Layer) -> None:
    layer = weighted(Int8WeightPerTensorFloat.let(scaling_impl=TiedScaling))
    parameter = layer.weight_quant.tensor_quant.scaling_impl.value
    layer.weight_quant.init_tensor_quant()
    scaling = layer.weight_quant.tensor_quant.scaling_impl
    assert scaling.value is parameter
    assert scaling.again is parameter


def test_what_is_built_again_is_in_the_mode_of_what_it_replaces(weighted: Layer) -> None:
    layer = weighted(LearnedMax).eval()
    layer.weight_quant.init_tensor_quant()
    assert not any(module.training for module in layer.modules())
