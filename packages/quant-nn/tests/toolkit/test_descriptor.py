"""Descriptors: values that are checked, and the quantizers that they spell."""

from __future__ import annotations

import pickle
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import quant_nn as qnn
from quant_core.errors import ConfigurationError
from quant_nn.toolkit import (
    QUANT_DESC_8BIT_CONV2D_WEIGHT_PER_CHANNEL,
    QUANT_DESC_8BIT_CONVTRANSPOSE2D_WEIGHT_PER_CHANNEL,
    QUANT_DESC_8BIT_PER_TENSOR,
    QuantDescriptor,
    fake_tensor_quant,
)

amaxes = st.floats(1e-3, 1e3)


@st.composite
def descriptors(draw: st.DrawFn) -> QuantDescriptor:
    axis = draw(st.none() | st.integers(0, 3))
    many = st.lists(amaxes, min_size=1, max_size=4)
    amax = draw(st.none() | amaxes if axis is None else st.none() | amaxes | many)
    unsigned = draw(st.booleans())
    return QuantDescriptor(
        num_bits=draw(st.integers(2, 32)),
        name=draw(st.none() | st.sampled_from(["fc1", "an: odd 'name'"])),
        axis=axis,
        amax=amax,
        learn_amax=amax is not None and draw(st.booleans()),
        scale_amax=draw(st.none() | amaxes),
        calib_method=draw(st.sampled_from(["max", "histogram", "entropy", "percentile", "mse"])),
        unsigned=unsigned,
        narrow_range=not unsigned and draw(st.booleans()),
    )


@given(descriptors())
def test_yaml_and_pickle_round_trip(descriptor: QuantDescriptor) -> None:
    assert QuantDescriptor.from_yaml(descriptor.to_yaml()) == descriptor
    assert pickle.loads(pickle.dumps(descriptor)) == descriptor
    assert hash(descriptor) == hash(QuantDescriptor.from_yaml(descriptor.to_yaml()))


def test_only_what_differs_from_the_default_is_written() -> None:
    assert QuantDescriptor().to_yaml() == "{}\n"
    assert QuantDescriptor(num_bits=4).to_yaml() == "num_bits: 4\n"


def test_amax_may_be_a_tensor() -> None:
    assert QuantDescriptor(amax=torch.tensor(2.0)).amax == 2.0
    assert QuantDescriptor(axis=0, amax=torch.tensor([1.0, 2.0])).amax == (1.0, 2.0)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {"num_bits": 1, "name": "fc1"},
            "num_bits=1 is not a number of bits\n"
            "  at QuantDescriptor 'fc1'\n"
            "  integers have a whole number of bits, from 2 to 32\n"
            "  Use 8, or 4 for weights.",
        ),
        (
            {"axis": (0, 1)},
            "axis=(0, 1) is not possible\n"
            "  at QuantDescriptor\n"
            "  one axis may have a scale for each index\n"
            "  Give one axis, such as 0, or None for one scale.",
        ),
        (
            {"amax": -1.0},
            "amax=-1.0 is not possible\n"
            "  at QuantDescriptor\n"
            "  a largest magnitude is a positive and finite number\n"
            "  Leave it out to calibrate it.",
        ),
        (
            {"amax": [1.0, 2.0]},
            "amax=[1.0, 2.0] is not possible\n"
            "  at QuantDescriptor\n"
            "  without an axis there is one\n"
            "  Give axis, or one number.",
        ),
        (
            {"amax": "1e-3"},
            "amax='1e-3' is not possible\n"
            "  at QuantDescriptor\n"
            "  a largest magnitude is a positive and finite number\n"
            "  Leave it out to calibrate it.",
        ),
        (
            {"amax": {1: 2}},
            "amax={1: 2} is not possible\n"
            "  at QuantDescriptor\n"
            "  it is a number, or a list, tensor or array of them\n"
            "  Write 1.0, for example.",
        ),
        (
            {"calib_method": "entrpy"},
            "calib_method='entrpy' is not possible\n"
            "  at QuantDescriptor\n"
            "  the methods are max, histogram, entropy, percentile, mse\n"
            "  Did you mean 'entropy'?",
        ),
        (
            {"unsigned": True, "narrow_range": True},
            "narrow_range=True is not possible\n"
            "  at QuantDescriptor\n"
            "  it makes signed integers symmetric, and unsigned=True\n"
            "  Leave narrow_range or unsigned out.",
        ),
        (
            {"learn_amax": True, "fake_quant": False},
            "learn_amax=True is not possible\n"
            "  at QuantDescriptor\n"
            "  integers carry no gradient to amax\n"
            "  Set fake_quant=True.",
        ),
        (
            {"scale_amax": 0},
            "scale_amax=0 is not possible\n"
            "  at QuantDescriptor\n"
            "  a factor of amax is positive and finite\n"
            "  Use a number such as 0.9.",
        ),
        (
            {"unsigned": 1},
            "unsigned=1 is not possible\n  at QuantDescriptor\n  it is either on or off\n  Set it to True or False.",
        ),
    ],
)
def test_bad_fields_are_refused(fields: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        QuantDescriptor(**fields)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "num_bit: 4",
            "a QuantDescriptor has no field 'num_bit'\n"
            "  its fields are num_bits, name, axis, amax, learn_amax, scale_amax, calib_method, unsigned, narrow_range, "
            "fake_quant\n"
            "  Did you mean 'num_bits'?",
        ),
        (
            "- 4",
            "the text describes no quantizer\n"
            "  it holds a list, and a descriptor is a mapping\n"
            "  Write it with QuantDescriptor.to_yaml(), or as 'num_bits: 8'.",
        ),
    ],
)
def test_bad_yaml_is_refused(text: str, error: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        QuantDescriptor.from_yaml(text)
    assert str(caught.value) == error


def test_without_pyyaml_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ConfigurationError) as caught:
        QuantDescriptor().to_yaml()
    assert str(caught.value) == (
        "descriptors cannot be written as YAML\n  pyyaml is not installed\n  Install it: pip install 'quant-nn[yaml]'."
    )


def test_a_layer_with_descriptors_is_that_layer_with_our_quantizers() -> None:
    torch.manual_seed(0)
    layer = qnn.QuantConv2d(
        3,
        4,
        3,
        quant_desc_input=QUANT_DESC_8BIT_PER_TENSOR,
        quant_desc_weight=QUANT_DESC_8BIT_CONV2D_WEIGHT_PER_CHANNEL,
    )
    x = torch.randn(2, 3, 8, 8)
    weight_amax = layer.weight.abs().amax(dim=(1, 2, 3), keepdim=True)
    weight = fake_tensor_quant(layer.weight, weight_amax, narrow_range=False)
    expected = torch.nn.functional.conv2d(fake_tensor_quant(x, x.abs().max(), narrow_range=False), weight, layer.bias)
    assert torch.allclose(layer(x), expected, atol=1e-6)
    assert layer.quant_weight().scale.shape == (4, 1, 1, 1)
    assert layer.quant_weight().is_valid


def test_a_transposed_convolution_has_its_channels_along_axis_1() -> None:
    axis_1 = QUANT_DESC_8BIT_CONVTRANSPOSE2D_WEIGHT_PER_CHANNEL
    layer = qnn.QuantConvTranspose2d(3, 4, 3, quant_desc_weight=axis_1)
    assert layer.quant_weight().scale.shape == (1, 4, 1, 1)


def test_a_learned_amax_is_a_parameter_of_the_layer() -> None:
    layer = qnn.QuantLinear(
        3,
        2,
        quant_desc_input=QuantDescriptor(amax=2.0, learn_amax=True),
        quant_desc_weight=QuantDescriptor(axis=0, learn_amax=True),
    )
    assert layer.quant_weight().scale.shape == (2, 1)
    layer(torch.randn(5, 3) * 3).square().sum().backward()
    learned = [name for name, p in layer.named_parameters() if p.grad is not None and "quant" in name]
    assert sorted(learned) == [f"{tensor}_quant.tensor_quant.scaling_impl.value" for tensor in ("input", "weight")]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"quant_desc_weight": QuantDescriptor(axis=1)},
            "axis=1 of QuantDescriptor has no scales of its own in a weight\n"
            "  at QuantLinear\n"
            "  the output channels of this layer are along axis 0 of its weight\n"
            "  Set axis=0, or None for one scale.",
        ),
        (
            {"quant_desc_weight": QuantDescriptor(scale_amax=0.5)},
            "scale_amax=0.5 of QuantDescriptor has no amax to scale\n"
            "  at QuantLinear\n"
            "  the largest weight is found anew at each step\n"
            "  Give amax as well, or leave scale_amax out.",
        ),
        (
            {"quant_desc_weight": QuantDescriptor(calib_method="mse", name="fc1")},
            "calib_method='mse' of QuantDescriptor 'fc1' finds nothing in a weight\n"
            "  at QuantLinear\n"
            "  its range is amax where that is given, and else its largest magnitude; weights are not calibrated\n"
            "  Leave calib_method out.",
        ),
        (
            {"quant_desc_input": QuantDescriptor(learn_amax=True, axis=1)},
            "learn_amax=True of QuantDescriptor has no amax to start from\n"
            "  how many numbers there are to learn along the axis is not known before the first tensor\n"
            "  Give amax, one number for each index along the axis.",
        ),
        (
            {"quant_desc_input": QuantDescriptor(fake_quant=False)},
            "quant_desc_input of a layer has fake_quant=False\n"
            "  at QuantLinear\n"
            "  layers compute with the numbers that integers stand for; return_quant_tensor=True tells both\n"
            "  Leave fake_quant out, or use a TensorQuantizer by itself.",
        ),
        (
            {"quant_desc_input": 8},
            "quant_desc_input=8 is no descriptor\n"
            "  at QuantLinear\n"
            "  it is a quant_nn.toolkit.QuantDescriptor\n"
            "  Pass a quantizer as input_quant, or a descriptor here.",
        ),
        (
            {"quant_desc_weight": QuantDescriptor(), "weight_quant": None},
            "the weight has a descriptor and a quantizer\n"
            "  at QuantLinear\n"
            "  quant_desc_weight is a spelling of weight_quant, and both are given\n"
            "  Leave one of them out.",
        ),
    ],
)
def test_descriptors_that_do_not_fit_a_layer_are_refused(options: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        qnn.QuantLinear(3, 2, **options)
    assert str(caught.value) == text
