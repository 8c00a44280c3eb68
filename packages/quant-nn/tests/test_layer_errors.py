"""What a layer refuses, and what it says."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import quant_nn as qnn
from quant_core.errors import ConfigurationError, InputError, QuantError, UnusedAttributeError
from quant_core.quant import Int8ActPerTensorFloat, Int8Bias, Int8WeightPerTensorFloat, Uint8ActPerTensorFloat
from quant_core.tensor import QuantTensor


def quantized(scale: Any, *, signed: bool = True, shape: tuple[int, ...] = (1, 2)) -> QuantTensor:
    """Zeros on a grid of their own."""
    grid = torch.tensor(scale), torch.tensor(0.0), torch.tensor(4.0)
    return QuantTensor(torch.zeros(shape), *grid, signed=signed, symmetric=True)


def on_its_own_grid(kind: type[nn.Module]) -> nn.Module:
    """A joining layer that quantizes nothing."""
    return kind(input_quant=None, output_quant=None, return_quant_tensor=True)


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
    "a function that would change its input": (
        lambda: qnn.QuantHardTanh(inplace=True),
        ConfigurationError,
        "inplace=True would change the input of the layer\n"
        "  at QuantHardTanh\n"
        "  the quantizer makes a new tensor, and a quantized input is immutable\n"
        "  Leave inplace out.",
    ),
    "bounds that are no numbers": (
        lambda: qnn.QuantHardTanh(min_val="low"),
        ConfigurationError,
        "min_val='low' is not below max_val=1.0\n"
        "  at QuantHardTanh\n"
        "  values are clamped between the two\n"
        "  Use bounds such as min_val=-1.0 and max_val=1.0.",
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
        "  its scale is input scale · weight scale, and the input has several scales\n"
        "  Quantize the input per tensor, and not per channel. A recurrent layer gives each step a scale while it collects "
        "statistics: calibrate the model first.",
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
    "a quantized bias behind a float bias": (
        lambda: nn.Sequential(
            qnn.QuantLinear(3, 2, input_quant=Int8ActPerTensorFloat, return_quant_tensor=True),
            qnn.QuantLinear(2, 2, bias_quant=Int8Bias),
        )(torch.ones(1, 3)),
        InputError,
        "the bias cannot be quantized\n"
        "  at 1 (QuantLinear(in_features=2, out_features=2, bias=True))\n"
        "  its scale is input scale · weight scale, and a float bias has shifted the input beside its grid\n"
        "  Set bias_quant on the layer before it, or input_quant on this one.",
    ),
    "a sum on unequal scales": (
        lambda: on_its_own_grid(qnn.QuantEltwiseAdd)(quantized(0.5), quantized(0.25)),
        InputError,
        "the operands are not on one grid, and the result has none\n"
        "  at QuantEltwiseAdd\n"
        "  their scales are 0.5 and 0.25\n"
        "  Set input_quant or output_quant on this layer, or share one quantizer between the layers before it.",
    ),
    "a sum on scales that are equal by accident": (
        lambda: on_its_own_grid(qnn.QuantEltwiseAdd)(quantized(0.5), quantized(0.5)),
        InputError,
        "the operands are not on one grid, and the result has none\n"
        "  at QuantEltwiseAdd\n"
        "  their scales are 0.5 and 0.5, from different quantizers, so that they may become unequal\n"
        "  Set input_quant or output_quant on this layer, or share one quantizer between the layers before it.",
    ),
    "a concatenation of three, the last on another scale": (
        lambda: on_its_own_grid(qnn.QuantCat)([quantized(0.5), quantized(0.5), quantized([0.25, 2.0])]),
        InputError,
        "the operands are not on one grid, and the result has none\n"
        "  at QuantCat\n"
        "  their scales are 0.5 and 0.25 … 2\n"
        "  Set input_quant or output_quant on this layer, or share one quantizer between the layers before it.",
    ),
    "a sum of another signedness": (
        lambda: on_its_own_grid(qnn.QuantEltwiseAdd)(quantized(0.5), quantized(0.5, signed=False)),
        InputError,
        "the operands are not on one grid, and the result has none\n"
        "  at QuantEltwiseAdd\n"
        "  one is signed and the other is not: signed=True and signed=False\n"
        "  Set input_quant or output_quant on this layer, or share one quantizer between the layers before it.",
    ),
    "a sum with a plain tensor": (
        lambda: on_its_own_grid(qnn.QuantEltwiseAdd)(quantized(0.5), torch.zeros(1, 2)),
        InputError,
        "the operands are not on one grid, and the result has none\n"
        "  at QuantEltwiseAdd\n"
        "  one of them is a plain tensor\n"
        "  Set input_quant or output_quant on this layer, or share one quantizer between the layers before it.",
    ),
    "a sum of different shapes per channel": (
        lambda: qnn.QuantEltwiseAdd(
            input_scaling_per_output_channel=True, input_per_channel_broadcastable_shape=(1, 3, 1, 1)
        )(torch.ones(2, 3, 4, 4), torch.ones(2, 3, 1, 1)),
        InputError,
        "operands of shapes (2, 3, 4, 4) and (2, 3, 1, 1) cannot be quantized per channel together\n"
        "  at QuantEltwiseAdd\n"
        "  while input_quant collects statistics it sees them as one tensor, whose parts may differ along axis 0 only\n"
        "  Bring them to one shape before, such as other.expand_as(input), or quantize the operands per tensor.",
    ),
    "a sum of different shapes with NaN": (
        lambda: qnn.QuantEltwiseAdd()(torch.full((2, 3), torch.nan), torch.ones(3)),
        InputError,
        "a tensor that holds infinities or NaN has no statistic to collect\n"
        "  at QuantEltwiseAdd\n"
        "  the statistic of step 1 is nan\n"
        "  Look for infinities and NaN in what comes in, for example after a step with too large a learning rate.",
    ),
    "branches that do not fit": (
        lambda: qnn.QuantEltwiseAdd()(torch.zeros(1, 4, 8, 8), torch.zeros(1, 4, 4, 4)),
        InputError,
        "tensors of shape (1, 4, 8, 8) and (1, 4, 4, 4) cannot be added\n"
        "  at QuantEltwiseAdd\n"
        "  along each axis, counted from the last, the sizes are equal or one of them is 1\n"
        "  Check the strides and channels of the two branches that meet here.",
    ),
    "branches that cannot be joined": (
        lambda: qnn.QuantCat()([torch.zeros(1, 4, 8), torch.zeros(1, 4, 4)], dim=1),
        InputError,
        "tensors of shapes (1, 4, 8), (1, 4, 4) cannot be joined along axis 1\n"
        "  at QuantCat\n"
        "  there is at least one, and their sizes are equal along every other axis\n"
        "  Check the branches that meet here, or pass another dim.",
    ),
    "nothing to join": (
        lambda: qnn.QuantCat()([]),
        InputError,
        "tensors of shapes none cannot be joined along axis 1\n"
        "  at QuantCat\n"
        "  there is at least one, and their sizes are equal along every other axis\n"
        "  Check the branches that meet here, or pass another dim.",
    ),
    "tied quantizers of which there is none": (
        lambda: qnn.QuantEltwiseAdd(input_quant=None, tie_input_output_quant=True),
        ConfigurationError,
        "the quantizers of operands and result cannot be tied\n"
        "  at QuantEltwiseAdd\n"
        "  there is none of the operands\n"
        "  Pass input_quant alone together with tie_input_output_quant=True.",
    ),
    "tied quantizers that differ": (
        lambda: qnn.QuantCat(output_quant=Uint8ActPerTensorFloat, tie_input_output_quant=True),
        ConfigurationError,
        "the quantizers of operands and result cannot be tied\n"
        "  at QuantCat\n"
        "  output_quant is another quantizer\n"
        "  Pass input_quant alone together with tie_input_output_quant=True.",
    ),
    "an option of a tied quantizer": (
        lambda: qnn.QuantCat(tie_input_output_quant=True, output_bit_width=4),
        UnusedAttributeError,
        "option 'output_bit_width' has no quantizer to go to\n"
        "  at QuantCat\n"
        "  tie_input_output_quant=True gives the result the quantizer of the operands\n"
        "  Leave output_bit_width out.",
    ),
    "an index out of range": (
        lambda: qnn.QuantEmbedding(10, 2)(torch.tensor([3, 10])),
        InputError,
        "indices from 3 to 10 do not fit this layer\n"
        "  at QuantEmbedding(10, 2)\n"
        "  the table has rows 0 to 9\n"
        "  Check the vocabulary that the indices come from, or make num_embeddings larger.",
    ),
    "an index out of range of a table whose rows are bounded": (
        lambda: qnn.QuantEmbedding(10, 2, max_norm=1.0)(torch.tensor([3, 10])),
        InputError,
        "indices from 3 to 10 do not fit this layer\n"
        "  at QuantEmbedding(10, 2, max_norm=1.0)\n"
        "  the table has rows 0 to 9\n"
        "  Check the vocabulary that the indices come from, or make num_embeddings larger.",
    ),
    "an index that is no integer": (
        lambda: qnn.QuantEmbedding(10, 2)(torch.tensor([3.0])),
        InputError,
        "torch.float32 are no indices\n"
        "  at QuantEmbedding(10, 2)\n"
        "  rows are looked up by integers, int64 or int32\n"
        "  Convert them with .long(), before anything quantizes them.",
    ),
    "a sparse gradient of a quantized table": (
        lambda: qnn.QuantEmbedding(10, 2, sparse=True),
        ConfigurationError,
        "a quantized embedding has no sparse gradient\n"
        "  at QuantEmbedding\n"
        "  sparse=True, and the scale of the table depends on rows that are not looked up\n"
        "  Leave sparse out, or set weight_quant=None.",
    ),
    "bounds in the wrong order": (
        lambda: qnn.QuantHardTanh(min_val=1.0, max_val=1.0),
        ConfigurationError,
        "min_val=1.0 is not below max_val=1.0\n"
        "  at QuantHardTanh\n"
        "  values are clamped between the two\n"
        "  Use bounds such as min_val=-1.0 and max_val=1.0.",
    ),
    "shared bounds that differ": (
        lambda: qnn.QuantHardTanh(act_quant=qnn.QuantHardTanh().act_quant, max_val=2.0),
        ConfigurationError,
        "the shared quantizer applies Hardtanh(min_val=-1.0, max_val=1.0), this layer Hardtanh(min_val=-1.0, max_val=2.0)\n"
        "  at QuantHardTanh\n"
        "  the proxy of an activation holds its function as well\n"
        "  Share it between layers of one type, or share the whole layer by calling it twice.",
    ),
    "a factor for each of too many channels": (
        lambda: qnn.QuantScaleBias(3, bias=True)(torch.zeros(1, 4, 5, 5)),
        InputError,
        "an input of shape (1, 4, 5, 5) does not fit this layer\n"
        "  at QuantScaleBias(3, bias=True, runtime_shape=(1, -1, 1, 1))\n"
        "  it has as many axes as (1, -1, 1, 1), and num_features=3 at the place of -1\n"
        "  Check the order of the axes, or set runtime_shape.",
    ),
    "a shape without channels": (
        lambda: qnn.QuantScaleBias(3, bias=True, runtime_shape=(1, 3, 1, 1)),
        ConfigurationError,
        "runtime_shape=(1, 3, 1, 1) does not say where the channels are\n"
        "  at QuantScaleBias\n"
        "  it is 1 along every axis and -1 along that of the channels\n"
        "  Use (1, -1, 1, 1) for images, (1, -1) after a linear layer.",
    ),
    "an image for a one-dimensional normalization": (
        lambda: qnn.BatchNorm1dToQuantScaleBias(3)(torch.zeros(1, 3, 5, 5)),
        InputError,
        "an input of shape (1, 3, 5, 5) does not fit this layer\n"
        "  at BatchNorm1dToQuantScaleBias(3, eps=1e-05)\n"
        "  it has as many axes as (1, -1, 1), and num_features=3 at the place of -1\n"
        "  Check the order of the axes, or set runtime_shape.",
    ),
    "no size to upsample to": (
        lambda: qnn.QuantUpsample(),
        ConfigurationError,
        "size=None and scale_factor=None do not say how large the output is\n"
        "  at QuantUpsample\n"
        "  exactly one of them does\n"
        "  Pass size=(H, W), or scale_factor=2.",
    ),
    "a classifier of no classes": (
        lambda: qnn.HadamardClassifier(4, 0),
        ConfigurationError,
        "in_channels=4, out_channels=0 are no sizes\n"
        "  at HadamardClassifier\n"
        "  both are at least 1\n"
        "  Use the number of features, and that of classes.",
    ),
    "features with several scales": (
        lambda: qnn.HadamardClassifier(2, 2, return_quant_tensor=True)(quantized([0.25, 2.0])),
        InputError,
        "the output cannot be returned as a quantized tensor\n"
        "  at HadamardClassifier(in_channels=2, out_channels=2, fixed_scale=False)\n"
        "  features are added up, and those of the input have several scales or a zero-point\n"
        "  Quantize the input per tensor and symmetrically, or set return_quant_tensor=False.",
    ),
    "windows of different sizes": (
        lambda: qnn.TruncAdaptiveAvgPool2d(2)(quantized(0.5, shape=(1, 1, 5, 5))),
        InputError,
        "the windows have no common scale\n"
        "  at TruncAdaptiveAvgPool2d(output_size=2)\n"
        "  the mean of n integers has 1 / n of their scale, and an input of shape (1, 1, 5, 5) gives windows that hold "
        "different numbers of elements\n"
        "  Use an output size that divides the input, no ceil_mode, and padding that is counted.",
    ),
    "windows over several scales": (
        lambda: qnn.TruncAvgPool2d(2)(quantized([0.5, 0.25], shape=(1, 1, 2, 2))),
        InputError,
        "the windows have no common scale\n"
        "  at TruncAvgPool2d(kernel_size=2, stride=2, padding=0)\n"
        "  the mean of n integers has 1 / n of their scale, and the scale of the input varies in space\n"
        "  Quantize the input per tensor or per channel.",
    ),
    "a per-channel scale on a wrong axis": (
        lambda: qnn.QuantIdentity(scaling_per_output_channel=True, per_channel_broadcastable_shape=(1, 3, 1, 1))(
            torch.zeros(2, 4, 5, 5)
        ),
        InputError,
        "a scale of shape (1, 3, 1, 1) does not fit a tensor of shape (2, 4, 5, 5)\n"
        "  at QuantIdentity\n"
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


@pytest.mark.parametrize("training", [True, False])
def test_unequal_scales_are_refused_in_both_modes_alike(training: bool) -> None:
    """And equal ones are taken in both."""
    first, second = (
        qnn.QuantIdentity(return_quant_tensor=True, collect_stats_steps=1, bit_width=bits) for bits in (4, 5)
    )
    joint = on_its_own_grid(qnn.QuantEltwiseAdd)
    x = torch.linspace(-1, 1, 6).reshape(2, 3)
    first(x)
    second(3 * x)
    for layer in (first, second, joint):
        layer.train(training)
    with pytest.raises(InputError, match=r"their scales are 0\.125 and 0\.1875"):
        joint(first(x), second(x))
    assert joint(first(x), first(2 * x)).is_valid


def test_a_scale_per_channel_beside_a_statistic_that_knows_none_has_no_effect() -> None:
    with pytest.raises(UnusedAttributeError) as caught:
        qnn.QuantLinear(4, 2, weight_scaling_per_output_channel=True, weight_scaling_stats_op="max_ave")
    assert str(caught.value).startswith("option 'weight_scaling_per_output_channel' has no effect\n  at QuantLinear\n")


def test_the_names_that_are_offered_are_arguments_and_attributes_of_the_quantizers() -> None:
    with pytest.raises(UnusedAttributeError) as caught:
        qnn.QuantLinear(3, 2, zzz=1)
    offered = caught.value.fix.removeprefix("Known names: ").rstrip(".").split(", ")
    assert "weight_bit_width" in offered
    assert all(
        name.removeprefix("weight_") in Int8WeightPerTensorFloat
        for name in offered
        if "weight_" in name[:7] and name != "weight_quant"
    )
