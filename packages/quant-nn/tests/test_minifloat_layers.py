"""Layers of minifloats: what they compute, and that their accumulators are on no grid."""

import pytest
import torch
from torch import Tensor

import quant_nn as qnn
from quant_core.errors import InputError
from quant_core.quant import Fp8e4m3Act, Fp8e4m3OCPWeightPerChannelFloat, Int8Bias

FLOATS = {"weight_quant": Fp8e4m3OCPWeightPerChannelFloat, "input_quant": Fp8e4m3Act}


def test_a_layer_multiplies_numbers_of_the_format() -> None:
    torch.manual_seed(0)
    layer, x = qnn.QuantConv2d(3, 4, 3, **FLOATS), torch.randn(2, 3, 5, 5)
    wanted = torch.nn.functional.conv2d(layer.input_quant(x).value, layer.quant_weight().value, layer.bias)
    assert torch.equal(layer(x), wanted)
    layer(x).sum().backward()
    assert isinstance(layer.weight.grad, Tensor)
    assert bool((layer.weight.grad != 0).all())


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"bias_quant": Int8Bias}, "the bias cannot be quantized"),
        (
            {"return_quant_tensor": True},
            "the output cannot be returned as a quantized tensor without an output quantizer",
        ),
    ],
)
def test_an_accumulator_of_minifloats_has_no_scale(options: dict[str, object], what: str) -> None:
    layer = qnn.QuantLinear(4, 2, **FLOATS, **options)
    with pytest.raises(InputError) as caught:
        layer(torch.randn(3, 4))
    assert str(caught.value) == (
        f"{what}\n"
        "  at QuantLinear(in_features=4, out_features=2, bias=True)\n"
        "  its scale is input scale · weight scale, and minifloats are not equally far apart\n"
        "  Leave the bias and the output in float, set output_quant, or use integer quantizers for input and weight."
    )
