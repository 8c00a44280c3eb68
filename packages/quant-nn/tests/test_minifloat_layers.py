"""Layers of minifloats: what they compute, and that their accumulators are on no grid."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.errors import InputError
from quant_core.ops.minifloat import round_to_format
from quant_core.quant import Fp8e4m3Act, Fp8e4m3OCPWeightPerChannelFloat, Fp8e5m2Act, Int8Bias
from quant_core.tensor import QuantTensor

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


def minifloats(*shape: int, quantizer: type = Fp8e4m3Act) -> QuantTensor:
    torch.manual_seed(0)
    return qnn.QuantIdentity(act_quant=quantizer, return_quant_tensor=True)(torch.randn(shape))


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "area"])
def test_upsampling_rounds_to_numbers_of_the_format(mode: str) -> None:
    x = minifloats(1, 2, 4, 5)
    out = qnn.QuantUpsample(scale_factor=1.5, mode=mode)(x)
    between = nn.functional.interpolate(x.value, scale_factor=1.5, mode=mode)
    assert out.float_format == x.float_format
    assert out.is_valid
    assert torch.equal(out.value, round_to_format(between / x.scale, x.float_format) * x.scale)


def test_the_products_of_attention_weights_and_values_are_plain() -> None:
    options = {"out_proj_input_quant": None, "out_proj_bias_quant": None}
    layer = qnn.QuantMultiheadAttention(4, 2, v_quant=Fp8e4m3Act, **options)
    x = torch.randn(3, 1, 4)
    assert layer(x, x, x)[0].shape == x.shape


NO_BITS = (
    "minifloats have no bits to drop\n"
    "  at {}\n"
    "  they are numbers of e4m3 up to 480 times the scale, and only those of integers can be dropped\n"
    "  Leave this layer out, or use integer quantizers before it."
)
CASES: dict[str, tuple[Callable[[], object], str]] = {
    "low bits": (lambda: qnn.TruncQuantAccumulator()(minifloats(3)), NO_BITS.format("TruncQuantAccumulator")),
    "high bits": (lambda: qnn.ClampQuantAccumulator()(minifloats(3)), NO_BITS.format("ClampQuantAccumulator")),
    "an average in integers": (
        lambda: qnn.TruncAvgPool2d(2)(minifloats(1, 1, 4, 4)),
        "the windows have no common scale\n"
        "  at TruncAvgPool2d(kernel_size=2, stride=2, padding=0)\n"
        "  the mean of n integers has 1 / n of their scale, and those of minifloats are not equally far apart\n"
        "  Use an integer quantizer before this layer.",
    ),
    "a sum": (
        lambda: qnn.QuantEltwiseAdd(None, None, return_quant_tensor=True)(minifloats(3), minifloats(3)),
        "the sum cannot be returned as a quantized tensor without an output quantizer\n"
        "  at QuantEltwiseAdd\n"
        "  minifloats are not equally far apart, so that sums of them are none\n"
        "  Set output_quant on this layer, or return_quant_tensor=False.",
    ),
    "two formats": (
        lambda: qnn.QuantCat(None, None, return_quant_tensor=True)(
            [minifloats(1, 3), minifloats(1, 3, quantizer=Fp8e5m2Act)]
        ),
        "the operands are not on one grid, and the result has none\n"
        "  at QuantCat\n"
        "  their numbers are e4m3 up to 480 and e5m2 up to 114688\n"
        "  Set input_quant or output_quant on this layer, or share one quantizer between the layers before it.",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_only_integers_can_do_is_refused(name: str) -> None:
    call, message = CASES[name]
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value) == message
