"""Layers that drop bits of an accumulator: in a network, in its repr, and what they refuse."""

from typing import Any

import pytest
import torch
from torch import nn

import quant_nn as qnn
from quant_core.errors import ConfigurationError, InputError, QuantError, UnusedAttributeError
from quant_core.quant import (
    ClampTo16bit,
    Int8AccumulatorAwareWeightQuant,
    Int8AccumulatorAwareZeroCenterWeightQuant,
    Int8ActPerTensorFloat,
    Int8Bias,
    Int8WeightPerTensorFloat,
    LearnedMsbClamp,
    NoneClampQuant,
    RoundTo8bit,
    ShiftRoundSaturateTo8bit,
    TruncTo8bit,
    Uint8ActPerTensorFloat,
)
from quant_core.tensor import QuantTensor

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def network(last: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        qnn.QuantIdentity(return_quant_tensor=True),
        qnn.QuantConv2d(3, 4, 3, bias_quant=Int8Bias, return_quant_tensor=True),
        last,
    )


@pytest.mark.parametrize(
    ("layer", "bits", "text"),
    [
        (qnn.TruncQuantAccumulator(), 8, "TruncQuantAccumulator(trunc: 8 bits)"),
        (qnn.TruncQuantAccumulator(trunc_quant=TruncTo8bit, bit_width=5), 5, "TruncQuantAccumulator(trunc: 5 bits)"),
        (qnn.TruncQuantAccumulator(trunc_quant=ShiftRoundSaturateTo8bit), 8, "TruncQuantAccumulator(trunc: 8 bits)"),
        (qnn.TruncQuantAccumulator(trunc_quant=None), 22, "TruncQuantAccumulator()"),
        (qnn.ClampQuantAccumulator(bit_width=12), 12, "ClampQuantAccumulator(clamp: 12 bits)"),
        (qnn.ClampQuantAccumulator(clamp_quant=LearnedMsbClamp), 20, "ClampQuantAccumulator(clamp: ? bits)"),
        (qnn.ClampQuantAccumulator(clamp_quant=NoneClampQuant), 22, "ClampQuantAccumulator(clamp: off)"),
    ],
)
def test_the_accumulator_of_a_layer_with_fewer_bits(layer: nn.Module, bits: int, text: str) -> None:
    out = network(layer)(X)
    assert out.is_valid
    assert out.bit_width.item() == bits
    assert out.signed
    assert repr(layer) == text


@pytest.mark.parametrize("quantizer", [RoundTo8bit, ShiftRoundSaturateTo8bit])
def test_the_error_is_that_of_the_bits_that_are_dropped(quantizer: Any) -> None:
    net = network(qnn.TruncQuantAccumulator(trunc_quant=quantizer))
    exact, rounded = net[:2](X), net(X)
    inside = rounded.int().abs() < 127
    assert ((exact.value - rounded.value).abs() <= 0.5001 * rounded.scale)[inside].all()


def test_plain_values_on_request() -> None:
    out = network(qnn.ClampQuantAccumulator(return_quant_tensor=False))(X)
    assert isinstance(out, torch.Tensor)


def test_an_accumulator_saturates_where_an_aware_weight_never_does() -> None:
    """With all inputs at their largest, 16 bits are too few for 8-bit weights, and enough for those that are aware of it."""
    plain, aware = (
        qnn.QuantLinear(
            512,
            4,
            bias=False,
            weight_quant=quantizer,
            input_quant=Uint8ActPerTensorFloat,
            return_quant_tensor=True,
            **options,
        )
        for quantizer, options in (
            (Int8WeightPerTensorFloat, {}),
            (Int8AccumulatorAwareWeightQuant, {"weight_accumulator_bit_width": 16}),
        )
    )
    for layer, saturates in ((plain, True), (aware, False)):
        with torch.no_grad():
            layer.weight.abs_()
        layer.weight_quant.init_tensor_quant()
        out = layer(torch.ones(1, 512))
        assert torch.equal(qnn.ClampQuantAccumulator()(out).value, out.value) is not saturates


@pytest.mark.parametrize("quantizer", [Int8AccumulatorAwareWeightQuant, Int8AccumulatorAwareZeroCenterWeightQuant])
@pytest.mark.parametrize(
    "layer",
    [
        lambda **options: (qnn.QuantConv2d(4, 6, 3, groups=2, **options), torch.randn(1, 4, 6, 6)),
        lambda **options: (qnn.QuantConv1d(4, 6, 3, **options), torch.randn(1, 4, 6)),
        lambda **options: (qnn.QuantLinear(64, 6, **options), torch.randn(1, 64)),
        lambda **options: (qnn.QuantConvTranspose2d(8, 6, 3, **options), torch.randn(1, 8, 6, 6)),
    ],
    ids=["grouped", "1d", "linear", "transposed"],
)
def test_aware_weights_fit_whatever_the_layer(layer: Any, quantizer: Any) -> None:
    torch.manual_seed(0)
    built, x = layer(
        bias=False, weight_quant=quantizer, weight_accumulator_bit_width=15, input_quant=Int8ActPerTensorFloat
    )
    built(x)
    assert built.accumulator(x).bit_width <= 15
    assert (built.quant_weight().int() != 0).any()


def test_the_bits_of_the_input_come_with_it() -> None:
    layer = qnn.QuantLinear(
        64, 6, bias=False, weight_quant=Int8AccumulatorAwareWeightQuant, weight_accumulator_bit_width=12
    )
    sums = []
    for bits in (4, 8):
        x = qnn.QuantIdentity(bit_width=bits, return_quant_tensor=True)(torch.randn(1, 64))
        layer(x)
        sums.append(int(layer.quant_weight(x).int().abs().sum(1).max()))
        assert sums[-1] * 2 ** (bits - 1) <= 2**11 - 1
    assert sums[0] > 10 * sums[1]


REFUSED: dict[str, tuple[Any, type[QuantError], str]] = {
    "an unknown option": (
        lambda: qnn.TruncQuantAccumulator(bit_widht=4),
        UnusedAttributeError,
        "unknown option 'bit_widht'\n"
        "  at TruncQuantAccumulator\n"
        "  nothing in RoundTo8bit reads 'bit_widht'\n"
        "  Did you mean 'bit_width'?",
    ),
    "a quantizer of weights": (
        lambda: qnn.TruncQuantAccumulator(trunc_quant=Int8WeightPerTensorFloat),
        ConfigurationError,
        "trunc_quant is a quantizer of the weight\n"
        "  at TruncQuantAccumulator\n"
        "  Int8WeightPerTensorFloat quantizes a weight, and this one quantizes the accumulator\n"
        "  Pass one such as RoundTo8bit, from quant_core.quant.",
    ),
    "an accumulator's quantizer for an activation": (
        lambda: qnn.QuantIdentity(act_quant=ClampTo16bit),
        ConfigurationError,
        "act_quant is a quantizer of the accumulator\n"
        "  at QuantIdentity\n"
        "  ClampTo16bit quantizes an accumulator, and this one quantizes the activation\n"
        "  Pass one whose name says Act, from quant_core.quant.",
    ),
    "a plain tensor": (
        lambda: qnn.ClampQuantAccumulator()(torch.zeros(1)),
        InputError,
        "a plain tensor has no bits to drop\n"
        "  at ClampQuantAccumulator\n"
        "  the integers of an accumulator are known from its scale, and this tensor has none\n"
        "  Set return_quant_tensor=True on the layer before it.",
    ),
    "a float bias": (
        lambda: qnn.TruncQuantAccumulator()(
            qnn.QuantLinear(2, 1, return_quant_tensor=True, input_quant=Int8ActPerTensorFloat)(torch.ones(1, 2))
        ),
        InputError,
        "bits of integers with a zero-point cannot be dropped\n"
        "  at TruncQuantAccumulator\n"
        "  the zero-point of this tensor may differ from 0; with fewer bits the real number 0 would leave the grid\n"
        "  Set bias_quant on the layer before it, and use quantizers without a zero-point.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str) -> None:
    make, kind, message = REFUSED[case]
    with pytest.raises(kind) as caught:
        make()
    assert str(caught.value) == message


def test_shared_between_layers() -> None:
    first = qnn.TruncQuantAccumulator(trunc_quant=ShiftRoundSaturateTo8bit)
    second = qnn.TruncQuantAccumulator(trunc_quant=first.trunc_quant)
    assert second.trunc_quant is first.trunc_quant
    assert isinstance(network(second)(X), QuantTensor)
