"""The proxy of a bias: a grid that is given from outside."""

import pytest
import torch
from torch import nn

from quant_core.errors import InputError
from quant_core.proxies import BiasQuantProxyFromInjector
from quant_core.quant import Int8Bias, Int16Bias, Int32Bias


@pytest.mark.parametrize(("quantizer", "bits"), [(Int8Bias, 8), (Int16Bias, 16), (Int32Bias, 32)])
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
