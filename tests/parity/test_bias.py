"""Our biases against Brevitas's, as black boxes: with the accumulator's scale, and with one of their own."""

from typing import Any

import brevitas.nn as bnn
import brevitas.quant as bq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import quant_core.quant as q
import quant_nn as qnn

seeds = st.integers(0, 10_000)


def tensor(seed: int, *shape: int, scale: float = 1.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def assert_close(found: Tensor, wanted: Tensor, *, relative: float) -> None:
    """Equal up to a share of the largest element."""
    limit = relative * max(float(wanted.abs().max()), 1e-12)
    assert float((found - wanted).abs().max()) <= limit


@settings(max_examples=40, deadline=None)
@given(
    seeds,
    st.sampled_from(["Int8BiasPerTensorFloatInternalScaling", "Int8BiasPerTensorFixedPointInternalScaling"]),
    st.integers(2, 16),
    st.booleans(),
    st.sampled_from([0.001, 1.0, 50.0]),
)
def test_biases_with_a_scale_of_their_own(seed: int, name: str, bits: int, quantized: bool, spread: float) -> None:
    """The input may be quantized or not."""
    bias, x = tensor(seed, 5, scale=spread), tensor(seed + 1, 7, 16)
    results = []
    for library, presets in ((qnn, q), (bnn, bq)):
        layer = library.QuantLinear(
            16,
            5,
            bias=True,
            bias_quant=getattr(presets, name),
            bias_bit_width=bits,
            input_quant=presets.Int8ActPerTensorFloat if quantized else None,
        )
        with torch.no_grad():
            layer.weight.copy_(tensor(seed + 2, 5, 16))
            layer.bias.copy_(bias)
        layer.weight_quant.init_tensor_quant()
        args = () if library is bnn else (None,)
        found = layer.bias_quant(layer.bias, *args)
        out = layer(x)
        out.backward(tensor(seed + 3, 7, 5))
        results.append((found, out, layer.bias.grad))
    (own, own_out, own_grad), (other, other_out, other_grad) = results
    assert torch.equal(own.scale, other.scale)
    assert torch.equal(own.value, other.value)
    assert own.bit_width.item() == other.bit_width.item()
    assert torch.equal(own_out, other_out)
    assert_close(own_grad, other_grad, relative=1e-3)


@settings(max_examples=25, deadline=None)
@given(seeds, st.sampled_from(["IntBias", "Int24Bias"]), st.integers(4, 20), st.booleans())
def test_biases_at_the_scale_of_the_accumulator(seed: int, name: str, bits: int, channels: bool) -> None:
    results: list[Any] = []
    for library, presets in ((qnn, q), (bnn, bq)):
        layer = library.QuantLinear(
            16,
            5,
            bias=True,
            bias_quant=getattr(presets, name),
            weight_scaling_per_output_channel=channels,
            input_quant=presets.Int8ActPerTensorFloat,
            return_quant_tensor=True,
            **({"bias_bit_width": bits} if name == "IntBias" else {}),
        )
        with torch.no_grad():
            layer.weight.copy_(tensor(seed, 5, 16))
            layer.bias.copy_(tensor(seed + 1, 5))
        layer.weight_quant.init_tensor_quant()
        out = layer(tensor(seed + 2, 7, 16))
        out.value.sum().backward()
        results.append((out, layer.bias.grad))
    (own, own_grad), (other, other_grad) = results
    assert torch.equal(own.value, other.value)
    assert torch.equal(own.scale.flatten(), other.scale.flatten())
    assert own.bit_width.item() == other.bit_width.item()
    assert_close(own_grad, other_grad, relative=1e-6)


@pytest.mark.parametrize("bias", [None, "Int8Bias", "Int32Bias", "Int8BiasPerTensorFloatInternalScaling"])
@pytest.mark.parametrize("channels", [False, True])
@settings(max_examples=3, deadline=None)
@given(seed=seeds)
def test_the_grid_of_the_output(bias: str | None, channels: bool, seed: int) -> None:
    """There, a quantized bias of a convolution shifts a grid per channel; one with a scale of its own costs a bit."""
    found = []
    for library, presets in ((qnn, q), (bnn, bq)):
        layer = library.QuantConv2d(
            3,
            4,
            3,
            bias_quant=None if bias is None else getattr(presets, bias),
            weight_scaling_per_output_channel=channels,
            input_quant=presets.Int8ActPerTensorFloat,
            return_quant_tensor=True,
        )
        with torch.no_grad():
            layer.weight.copy_(tensor(seed, 4, 3, 3, 3))
            layer.bias.copy_(tensor(seed + 1, 4))
        layer.weight_quant.init_tensor_quant()
        if bias is not None and bias.endswith("InternalScaling"):
            layer.bias_quant.init_tensor_quant()
        found.append(layer(tensor(seed + 2, 2, 3, 5, 5)))
    ours, theirs = found
    assert_close(ours.value, theirs.value, relative=1e-6)
    assert_close(ours.scale.flatten(), theirs.scale.flatten(), relative=1e-6)
    own_scale = bias is not None and bias.endswith("InternalScaling")
    assert ours.bit_width.item() == theirs.bit_width.item() - own_scale
    on_grid = bias in ("Int8Bias", "Int32Bias")
    if on_grid:
        assert not ours.zero_point.any()
        assert bool(theirs.zero_point.any()) is channels
    else:
        assert_close(ours.zero_point.flatten(), theirs.zero_point.detach().flatten(), relative=1e-6)
