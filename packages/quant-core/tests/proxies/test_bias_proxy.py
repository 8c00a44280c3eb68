"""The proxy of a bias: a grid that is given from outside."""

import pytest
import torch
from torch import nn

from quant_core.components import ParameterFromStatsFromParameterScaling
from quant_core.errors import InputError, MissingDependencyError
from quant_core.proxies import BiasQuantProxyFromInjector
from quant_core.quant import (
    Int8Bias,
    Int8BiasPerTensorFixedPointInternalScaling,
    Int8BiasPerTensorFloatInternalScaling,
    Int16Bias,
    Int24Bias,
    Int32Bias,
    IntBias,
)


@pytest.mark.parametrize(("quantizer", "bits"), [(Int8Bias, 8), (Int16Bias, 16), (Int24Bias, 24), (Int32Bias, 32)])
@pytest.mark.parametrize("scale", [torch.tensor(0.01), torch.tensor([0.01, 0.02, 0.5])], ids=["tensor", "channel"])
def test_a_bias_lies_on_the_grid_of_the_accumulator(quantizer: type[Int8Bias], bits: int, scale: torch.Tensor) -> None:
    layer = nn.Linear(4, 3)
    quantized = BiasQuantProxyFromInjector(layer, quantizer)(layer.bias, scale)
    assert torch.equal(quantized.scale, scale)
    assert torch.equal(quantized.value, (layer.bias / scale).round() * scale)
    assert (quantized.bit_width.item(), quantized.signed, quantized.symmetric, quantized.is_valid) == (
        bits,
        True,
        True,
        True,
    )


@pytest.mark.parametrize("shape", [(1,), (1, 1, 1, 1), (3,), (1, 3, 1, 1), (3, 1)])
def test_the_scale_may_have_any_shape_with_one_element_or_one_for_each_channel(shape: tuple[int, ...]) -> None:
    layer = nn.Linear(4, 3)
    proxy = BiasQuantProxyFromInjector(layer, Int8Bias)
    scale = torch.full(shape, 0.01)
    quantized = proxy(layer.bias, scale)
    assert quantized.value.shape == (3,)
    assert quantized.scale.shape == (() if scale.numel() == 1 else (3,))
    assert torch.equal(quantized.value, proxy(layer.bias, torch.tensor(0.01)).value)


def test_a_value_beyond_the_range_is_clamped() -> None:
    proxy = BiasQuantProxyFromInjector(nn.Linear(4, 2), Int8Bias)
    assert proxy(torch.tensor([9.0, -9.0]), torch.tensor(0.01)).int().tolist() == [127, -128]


def test_a_bias_without_a_scale_is_refused() -> None:
    layer = nn.Linear(4, 3)
    with pytest.raises(InputError) as caught:
        BiasQuantProxyFromInjector(layer, Int8Bias)(layer.bias, None)
    assert str(caught.value) == (
        "the bias cannot be quantized without the scale of the layer's input\n"
        "  at Linear\n"
        "  its scale is input scale · weight scale, and one of them is not quantized, or the input per channel\n"
        "  Set input_quant on this layer, or return_quant_tensor=True on the layer before it."
    )


def test_a_disabled_proxy_needs_no_scale() -> None:
    layer = nn.Linear(4, 3)
    proxy = BiasQuantProxyFromInjector(layer, Int8Bias)
    proxy.disable_quant = True
    assert proxy(layer.bias, None) is layer.bias


def test_loading_a_checkpoint_does_not_build_it_again() -> None:
    layer = nn.Linear(4, 3)
    layer.bias_quant = BiasQuantProxyFromInjector(layer, Int8Bias)
    built = layer.bias_quant.tensor_quant
    layer.load_state_dict(nn.Linear(4, 3).state_dict(), strict=True)
    assert layer.bias_quant.tensor_quant is built


def test_a_bias_without_bits_asks_for_them() -> None:
    layer = nn.Linear(4, 3)
    assert BiasQuantProxyFromInjector(layer, IntBias.let(bit_width=11))(layer.bias, torch.tensor(0.01)).bit_width == 11
    with pytest.raises(MissingDependencyError, match=r"^IntBias has no attribute 'bit_width'\n"):
        BiasQuantProxyFromInjector(layer, IntBias)


INTERNAL = [Int8BiasPerTensorFloatInternalScaling, Int8BiasPerTensorFixedPointInternalScaling]


@pytest.mark.parametrize("quantizer", INTERNAL)
def test_a_bias_may_have_a_scale_of_its_own(quantizer: type) -> None:
    layer = nn.Linear(4, 3)
    nn.init.constant_(layer.bias, -0.75)
    proxy = BiasQuantProxyFromInjector(layer, quantizer)
    assert not proxy.requires_input_scale
    quantized = proxy(layer.bias, None)
    wanted = 1.0 if quantizer is Int8BiasPerTensorFixedPointInternalScaling else 0.75
    assert quantized.scale.item() == wanted / 128
    assert quantized.is_valid
    assert torch.equal(proxy(layer.bias, torch.tensor(100.0)).value, quantized.value)
    quantized.value.sum().backward()
    assert layer.bias.grad is not None


@pytest.mark.parametrize("quantizer", INTERNAL)
def test_a_bias_of_zeros_has_a_scale(quantizer: type) -> None:
    layer = nn.Linear(4, 3)
    nn.init.zeros_(layer.bias)
    quantized = BiasQuantProxyFromInjector(layer, quantizer)(layer.bias, None)
    assert quantized.scale.item() > 0
    assert torch.equal(quantized.value, torch.zeros(3))


def test_a_learned_scale_starts_from_the_bias_and_from_one_that_is_loaded() -> None:
    layer = nn.Linear(4, 3)
    quantizer = Int8BiasPerTensorFloatInternalScaling.let(scaling_impl=ParameterFromStatsFromParameterScaling)
    layer.bias_quant = BiasQuantProxyFromInjector(layer, quantizer)
    value = layer.bias_quant.tensor_quant.scaling_impl.value
    assert torch.equal(value, layer.bias.abs().max())
    layer.load_state_dict({"weight": torch.zeros(3, 4), "bias": torch.tensor([1.0, -5.0, 2.0])})
    assert layer.bias_quant.tensor_quant.scaling_impl.value is value
    assert value.item() == 5


def test_biases_that_share_a_quantizer_have_one_scale() -> None:
    one, other = nn.Linear(4, 3), nn.Linear(4, 7)
    proxy = BiasQuantProxyFromInjector(one, Int8BiasPerTensorFloatInternalScaling)
    proxy.add_owner(other)
    largest = torch.cat([one.bias, other.bias]).abs().max()
    assert torch.equal(proxy(one.bias, None).scale, largest / 128)
    assert torch.equal(proxy(other.bias, None).scale, largest / 128)
