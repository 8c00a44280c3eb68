"""What a layer refuses, and what it says."""

from collections.abc import Callable

import pytest
import torch

import quant_nn as qnn
from quant_core.errors import ConfigurationError, InputError, QuantError, UnusedAttributeError
from quant_core.quant import Int8ActPerTensorFloat, Int8Bias, Int8WeightPerTensorFloat

CASES: dict[str, tuple[Callable[[], object], type[QuantError], str]] = {
    "a misspelt option": (
        lambda: qnn.QuantLinear(3, 2, weight_bit_widht=4),
        UnusedAttributeError,
        "unknown option 'weight_bit_widht'\n"
        "  at QuantLinear\n"
        "  nothing in Int8WeightPerTensorFloat reads 'weight_bit_widht'\n"
        "  Did you mean 'weight_bit_width'?",
    ),
    "an option without a prefix": (
        lambda: qnn.QuantConv2d(1, 2, 3, bit_width=4),
        UnusedAttributeError,
        "unknown option 'bit_width'\n"
        "  at QuantConv2d\n"
        "  it is no argument of the layer, and options of its quantizers start with weight_*, bias_*, input_*, output_*\n"
        "  Did you mean 'weight_bit_width' or 'weight_bit_width_impl'?",
    ),
    "an option of a quantizer that is off": (
        lambda: qnn.QuantReLU(act_quant=None, bit_width=4),
        UnusedAttributeError,
        "option 'bit_width' has no quantizer to go to\n"
        "  at QuantReLU\n"
        "  act_quant is None on this layer\n"
        "  Leave bit_width out, or pass a quantizer as act_quant.",
    ),
    "an option of a bias that is not there": (
        lambda: qnn.QuantLinear(3, 2, bias=False, bias_quant=Int8Bias, bias_bit_width=4),
        UnusedAttributeError,
        "option 'bias_bit_width' has no quantizer to go to\n"
        "  at QuantLinear\n"
        "  this layer has no bias\n"
        "  Leave bias_bit_width out.",
    ),
    "a proxy of another kind": (
        lambda: qnn.QuantLinear(3, 2, bias_quant=qnn.QuantLinear(3, 2).weight_quant),
        ConfigurationError,
        "bias_quant is a quantizer of the weight\n"
        "  at QuantLinear\n"
        "  the proxy of another layer quantizes a weight, and this one quantizes the bias\n"
        "  Pass one whose name says Bias, from quant_core.quant.",
    ),
    "a quantizer of another kind": (
        lambda: qnn.QuantLinear(3, 2, weight_quant=Int8ActPerTensorFloat),
        ConfigurationError,
        "weight_quant is a quantizer of the activation\n"
        "  at QuantLinear\n"
        "  Int8ActPerTensorFloat quantizes activations, and this one quantizes the weight\n"
        "  Pass one whose name says Weight, from quant_core.quant.",
    ),
    "a shared activation with another function": (
        lambda: qnn.QuantReLU(act_quant=qnn.QuantIdentity().act_quant),
        ConfigurationError,
        "the shared quantizer applies no function, this layer ReLU\n"
        "  at QuantReLU\n"
        "  the proxy of an activation holds its function as well\n"
        "  Share it between layers of one type, or share the whole layer by calling it twice.",
    ),
    "a misspelt prefix": (
        lambda: qnn.QuantLinear(3, 2, weigth_bit_width=4),
        UnusedAttributeError,
        "unknown option 'weigth_bit_width'\n"
        "  at QuantLinear\n"
        "  it is no argument of the layer, and options of its quantizers start with weight_*, bias_*, input_*, output_*\n"
        "  Did you mean 'weight_bit_width' or 'weight_bit_width_impl' or 'weight_signed'?",
    ),
    "a misspelt argument of an activation": (
        lambda: qnn.QuantReLU(return_quant_tensors=True),
        UnusedAttributeError,
        "unknown option 'return_quant_tensors'\n"
        "  at QuantReLU\n"
        "  it is no argument of the layer, and options of its quantizers start with input_*, *\n"
        "  Did you mean 'return_quant_tensor'?",
    ),
    "an option that has no effect": (
        lambda: qnn.QuantIdentity(scaling_per_output_channel=False, per_channel_broadcastable_shape=(1, 3, 1, 1)),
        UnusedAttributeError,
        "option 'per_channel_broadcastable_shape' has no effect\n"
        "  at QuantIdentity\n"
        "  'per_channel_broadcastable_shape' is known to @value Int8ActPerTensorFloat.scaling_shape, but nothing reads it as "
        "Int8ActPerTensorFloat is configured\n"
        "  Leave per_channel_broadcastable_shape out, or choose components and options that read it.",
    ),
    "one bit": (
        lambda: qnn.QuantLinear(3, 2, weight_bit_width=1),
        ConfigurationError,
        "bit_width=1 is too small for an integer quantizer\n"
        "  at QuantLinear: weight_tensor_quant of Int8WeightPerTensorFloat\n"
        "  an integer quantizer needs at least 2 bits, got 1\n"
        "  Use BinaryQuant for one bit, or set bit_width to 2 or more.",
    ),
    "a quantizer that was called": (
        lambda: qnn.QuantLinear(3, 2, weight_quant="int8"),
        ConfigurationError,
        "weight_quant='int8' is not a quantizer\n"
        "  at QuantLinear\n"
        "  a quantizer is a subclass of quant_core.inject.Injector, or the proxy of another layer\n"
        "  Pass a class such as quant_core.quant.Int8WeightPerTensorFloat, without calling it.",
    ),
    "options for a shared quantizer": (
        lambda: qnn.QuantLinear(3, 2, weight_quant=qnn.QuantLinear(3, 2).weight_quant, weight_bit_width=4),
        ConfigurationError,
        "a shared quantizer takes no options, got weight_bit_width\n"
        "  at QuantLinear\n"
        "  weight_quant is the proxy of another layer, which has its options already\n"
        "  Set the options on the first layer, or pass the quantizer class to both.",
    ),
    "a wrong number of channels": (
        lambda: qnn.QuantConv1d(2, 3, 1)(torch.zeros(1, 4, 5)),
        InputError,
        "an input of shape (1, 4, 5) does not fit this layer\n"
        "  at QuantConv1d(2, 3, kernel_size=(1,), stride=(1,))\n"
        "  it takes (N, C, L) or (C, L), with C = in_channels = 2\n"
        "  Check the order of the axes, and the number of channels that the layer before it gives.",
    ),
    "a wrong number of features": (
        lambda: qnn.QuantLinear(3, 2)(torch.zeros(1, 4)),
        InputError,
        "an input of shape (1, 4) does not fit this layer\n"
        "  at QuantLinear(in_features=3, out_features=2, bias=True)\n"
        "  the last axis holds the features, and in_features=3\n"
        "  Give it a tensor of shape (..., 3), or flatten what comes before.",
    ),
    "a quantized bias without a scale": (
        lambda: qnn.QuantLinear(3, 2, bias_quant=Int8Bias)(torch.zeros(1, 3)),
        InputError,
        "the bias cannot be quantized\n"
        "  at QuantLinear(in_features=3, out_features=2, bias=True)\n"
        "  its scale is input scale · weight scale, and the input is a plain tensor\n"
        "  Set input_quant on this layer, or return_quant_tensor=True on the layer before it; a sum of two scales must be "
        "quantized again.",
    ),
    "a quantized bias beside a float weight": (
        lambda: qnn.QuantLinear(3, 2, weight_quant=None, input_quant=Int8ActPerTensorFloat, bias_quant=Int8Bias)(
            torch.ones(1, 3)
        ),
        InputError,
        "the bias cannot be quantized\n"
        "  at QuantLinear(in_features=3, out_features=2, bias=True)\n"
        "  its scale is input scale · weight scale, and the weight is not quantized\n"
        "  Set weight_quant, and do not disable it.",
    ),
    "a quantized bias behind a per-channel input": (
        lambda: qnn.QuantLinear(
            3,
            2,
            input_quant=Int8ActPerTensorFloat,
            input_scaling_per_output_channel=True,
            input_per_channel_broadcastable_shape=(1, 3),
            bias_quant=Int8Bias,
        )(torch.ones(1, 3)),
        InputError,
        "the bias cannot be quantized\n"
        "  at QuantLinear(in_features=3, out_features=2, bias=True)\n"
        "  its scale is input scale · weight scale, and the input has a scale for each channel\n"
        "  Quantize the input per tensor.",
    ),
    "an accumulator without a scale": (
        lambda: qnn.QuantLinear(3, 2, return_quant_tensor=True)(torch.zeros(1, 3)),
        InputError,
        "the output cannot be returned as a quantized tensor without an output quantizer\n"
        "  at QuantLinear(in_features=3, out_features=2, bias=True)\n"
        "  its scale is input scale · weight scale, and the input is a plain tensor\n"
        "  Set input_quant on this layer, or return_quant_tensor=True on the layer before it; a sum of two scales must be "
        "quantized again.",
    ),
    "a per-channel scale on a wrong axis": (
        lambda: qnn.QuantIdentity(scaling_per_output_channel=True, per_channel_broadcastable_shape=(1, 3, 1, 1))(
            torch.zeros(2, 4, 5, 5)
        ),
        InputError,
        "a scale of shape (1, 3, 1, 1) does not fit a tensor of shape (2, 4, 5, 5)\n"
        "  each axis of the scale is 1 or the size of the tensor's axis, counted from the last\n"
        "  Check which axis holds the channels: (1, C, 1, 1) for images, (1, C) after a linear layer.",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_refused_and_what_it_says(name: str) -> None:
    call, kind, message = CASES[name]
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == message


def test_a_refused_sharing_leaves_the_first_layer_as_it_was() -> None:
    layer = qnn.QuantLinear(3, 2, weight_quant=Int8WeightPerTensorFloat)
    quant = layer.weight_quant.tensor_quant
    with pytest.raises(ConfigurationError):
        qnn.QuantLinear(3, 2, weight_quant=layer.weight_quant, weight_bit_width=4)
    assert layer.weight_quant.owners == (layer,)
    assert layer.weight_quant.tensor_quant is quant


def test_a_layer_that_cannot_be_built_does_not_join_a_shared_quantizer() -> None:
    layer = qnn.QuantLinear(3, 2)
    with pytest.raises(UnusedAttributeError):
        qnn.QuantLinear(3, 2, weight_quant=layer.weight_quant, bias_quant=Int8Bias, bias_bit_widht=4)
    assert layer.weight_quant.owners == (layer,)
