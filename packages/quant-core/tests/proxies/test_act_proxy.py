"""The proxy of an activation: its function, what it tells about its grid, and its modes."""

import pytest
import torch
from torch import Tensor, nn

from quant_core.components import IntQuant, ParameterScaling
from quant_core.errors import ConfigurationError
from quant_core.inject import Injector
from quant_core.proxies import ActQuantProxyFromInjector
from quant_core.quant import Int8ActPerTensorFloat, Uint8ActPerTensorFloat
from quant_core.tensor import QuantTensor


def proxy_of(quantizer: type[Injector]) -> ActQuantProxyFromInjector:
    torch.manual_seed(0)
    return ActQuantProxyFromInjector(nn.Identity(), quantizer)


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
def test_the_grid_is_the_one_that_eval_mode_uses(steps: int) -> None:
    proxy = proxy_of(Int8ActPerTensorFloat.let(collect_stats_steps=2, bit_width=4))
    for step in range(steps):
        proxy(torch.randn(100) * (1 + step))
    told = proxy.scale(), proxy.zero_point(), proxy.bit_width()
    used = proxy.eval()(torch.randn(100))
    assert torch.equal(told[0], used.scale)
    assert torch.equal(told[1], used.zero_point)
    assert torch.equal(told[2], used.bit_width)


def test_asking_for_the_grid_changes_nothing() -> None:
    proxy = proxy_of(Int8ActPerTensorFloat.let(quant_delay_steps=3))
    proxy(torch.randn(100))
    proxy.tensor_quant.scaling_impl.eval()
    modes = [module.training for module in proxy.modules()]
    state = {name: tensor.clone() for name, tensor in proxy.state_dict().items()}
    proxy.scale()
    assert [module.training for module in proxy.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in proxy.state_dict().items())


class Refuses(ParameterScaling):
    """A scaling that fails when it is asked."""

    def forward(self, x: Tensor) -> Tensor:
        raise ConfigurationError("no threshold", why="this one has none", fix="Take another one.")


def test_modes_are_restored_when_the_grid_cannot_be_told() -> None:
    proxy = proxy_of(Int8ActPerTensorFloat.let(scaling_impl=Refuses, scaling_init=1.0))
    with pytest.raises(ConfigurationError) as caught:
        proxy.scale()
    assert str(caught.value) == "no threshold\n  this one has none\n  Take another one."
    assert all(module.training for module in proxy.modules())


@pytest.mark.parametrize("act_impl", [nn.Tanh, nn.Tanh()], ids=["class", "module"])
def test_the_function_comes_before_the_quantizer(act_impl: object) -> None:
    proxy = proxy_of(Int8ActPerTensorFloat.let(act_impl=act_impl, collect_stats_steps=1))
    x = torch.randn(100)
    proxy(x)
    proxy.eval()
    assert torch.equal(proxy(x).value, proxy.tensor_quant(x.tanh())[0])
    proxy.disable_quant = True
    assert torch.equal(proxy(x), x.tanh())


def test_a_quantized_tensor_is_quantized_by_its_value() -> None:
    proxy = proxy_of(Int8ActPerTensorFloat).eval()
    x = torch.randn(100)
    quantized = proxy(x)
    coarse = ActQuantProxyFromInjector(nn.Identity(), Int8ActPerTensorFloat.let(bit_width=2)).eval()
    assert torch.equal(coarse(quantized).value, coarse(quantized.value).value)
    assert torch.equal(proxy(quantized).value, quantized.value)
    proxy.disable_quant = True
    assert proxy(quantized) is quantized.value
    assert proxy(x) is x


def test_the_learned_function_keeps_its_parameter_and_its_mode_when_built_again() -> None:
    proxy = proxy_of(Int8ActPerTensorFloat.let(act_impl=nn.PReLU)).eval()
    slope = proxy.act_impl.weight
    proxy.init_tensor_quant()
    assert proxy.act_impl.weight is slope
    assert not proxy.act_impl.training


def test_one_proxy_serves_several_layers_with_one_scale() -> None:
    first, second = nn.Identity(), nn.Identity()
    proxy = ActQuantProxyFromInjector(first, Uint8ActPerTensorFloat.let(collect_stats_steps=2))
    proxy.add_owner(second)
    assert proxy.owners == (first, second)
    proxy(torch.full((4,), 1.0))
    proxy(torch.full((4,), 2.0))
    assert proxy.scale().item() == pytest.approx((0.9 * 1.0 + 0.1 * 2.0) / 255)


def test_a_delay_passes_floats_first_and_says_so_by_an_invalid_tensor() -> None:
    proxy = proxy_of(Int8ActPerTensorFloat.let(quant_delay_steps=1, bit_width=2, collect_stats_steps=1))
    x = torch.linspace(-1.0, 1.0, 7)
    early = proxy.eval()(x), proxy.train()(x)
    for quantized in early:
        assert isinstance(quantized, QuantTensor)
        assert torch.equal(quantized.value, x)
        assert not quantized.is_valid
    assert proxy(x).is_valid
    assert proxy.eval()(x).is_valid


def test_the_tensor_quantizer_of_a_named_quantizer_is_this_librarys() -> None:
    assert type(proxy_of(Int8ActPerTensorFloat).tensor_quant) is IntQuant


def test_the_last_tensor_that_statistics_are_collected_from_has_a_scale_of_its_own() -> None:
    proxy = proxy_of(Int8ActPerTensorFloat.let(collect_stats_steps=1))
    last, first, second = proxy(torch.ones(3)), proxy(torch.full((3,), 5.0)), proxy(torch.ones(3))
    assert isinstance(last, QuantTensor)
    assert last.origin is None
    assert first.origin is not None
    assert first.origin is second.origin
