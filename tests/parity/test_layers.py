"""Our layers against Brevitas's, as black boxes: values, scales, bit widths and gradients of each layer that it has.

Both are given the same weights, learn the scales of their activations from the same data, and get the same gradient. Where we
differ on purpose, docs/differences.md says why.
"""

from __future__ import annotations

from typing import Any

import brevitas.nn as bnn
import brevitas.quant as bq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import quant_core.quant as q
import quant_nn as qnn

LIBRARIES = ((qnn, q), (bnn, bq))
seeds = st.integers(0, 10_000)


def tensor(seed: int, *shape: int, scale: float = 1.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def assert_close(found: Tensor, wanted: Tensor, *, relative: float) -> None:
    """Equal up to a share of the largest element."""
    found, wanted = found.detach(), wanted.detach()
    limit = relative * max(float(wanted.abs().max()), 1e-12)
    assert float((found - wanted).abs().max()) <= limit


def set_parameters(layer: Any, seed: int) -> None:
    """The same weights and biases in both libraries."""
    with torch.no_grad():
        for index, name in enumerate(("weight", "bias")):
            parameter = getattr(layer, name, None)
            if parameter is not None:
                parameter.copy_(tensor(seed + index, *parameter.shape))
    layer.weight_quant.init_tensor_quant()


def entry_of(library: Any, seed: int, shape: tuple[int, ...], **options: Any) -> nn.Module:
    """A quantizer of inputs that has learned its scale."""
    entry = library.QuantIdentity(bit_width=5, return_quant_tensor=True, collect_stats_steps=1, **options)
    entry(tensor(seed + 7, *shape))
    entry.eval()
    return entry


WEIGHTED: dict[str, tuple[str, tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = {
    "linear": ("QuantLinear", (6, 4), {}, (2, 6)),
    "conv1d": ("QuantConv1d", (4, 6, 3), {"stride": 2, "padding": 1}, (2, 4, 9)),
    "conv2d": ("QuantConv2d", (4, 6, 3), {"dilation": 2, "padding": 2}, (2, 4, 7, 7)),
    "conv2d, same": ("QuantConv2d", (4, 6, 3), {"padding": "same"}, (2, 4, 7, 7)),
    "conv2d, grouped": ("QuantConv2d", (4, 8, 3), {"groups": 4}, (2, 4, 7, 7)),
    "conv2d, reflect": ("QuantConv2d", (4, 6, 3), {"padding": 1, "padding_mode": "reflect"}, (2, 4, 7, 7)),
    "conv2d, circular": ("QuantConv2d", (4, 6, 3), {"padding": 1, "padding_mode": "circular"}, (2, 4, 7, 7)),
    "conv3d": ("QuantConv3d", (2, 3, 2), {}, (1, 2, 4, 4, 4)),
    "transposed conv1d": ("QuantConvTranspose1d", (4, 6, 3), {"stride": 2, "output_padding": 1}, (2, 4, 6)),
    "transposed conv2d": ("QuantConvTranspose2d", (4, 6, 4), {"stride": 2, "padding": 1}, (2, 4, 5, 5)),
    "transposed conv3d": ("QuantConvTranspose3d", (2, 3, 2), {"stride": 2}, (1, 2, 3, 3, 3)),
    "scale and bias": ("QuantScaleBias", (4,), {"bias": True}, (2, 4, 5, 5)),
    "batch norm 1d": ("BatchNorm1dToQuantScaleBias", (4,), {}, (3, 4, 5)),
    "batch norm 2d": ("BatchNorm2dToQuantScaleBias", (4,), {}, (2, 4, 5, 5)),
}


@pytest.mark.parametrize("name", WEIGHTED)
@pytest.mark.parametrize("per_channel", [False, True])
@settings(max_examples=5, deadline=None)
@given(seed=seeds, bits=st.integers(2, 8), bias_quant=st.sampled_from(["Int8Bias", "Int16Bias", "Int32Bias"]))
def test_weighted_layers(name: str, per_channel: bool, seed: int, bits: int, bias_quant: str) -> None:
    kind, args, options, shape = WEIGHTED[name]
    incoming = None
    results = []
    for library, presets in LIBRARIES:
        layer = getattr(library, kind)(
            *args,
            **options,
            weight_bit_width=bits,
            weight_scaling_per_output_channel=per_channel,
            bias_quant=getattr(presets, bias_quant),
            return_quant_tensor=True,
        )
        set_parameters(layer, seed)
        x = tensor(seed + 2, *shape).requires_grad_()
        out = layer(entry_of(library, seed, shape)(x))
        incoming = tensor(seed + 3, *out.value.shape) if incoming is None else incoming
        out.value.backward(incoming)
        results.append((out, x.grad, layer.weight.grad, layer.bias.grad))
    (ours, *our_gradients), (theirs, *their_gradients) = results
    # Weights of one element per channel are all on the largest level, and 2⁻²⁴ of it decides a tie.
    assert_close(ours.value, theirs.value, relative=1e-6)
    assert_close(ours.scale.flatten(), theirs.scale.flatten(), relative=1e-6)
    if name.startswith("transposed"):  # there it is more than any input needs
        assert ours.bit_width.item() <= theirs.bit_width.item()
    elif bias_quant == "Int32Bias":  # there it is log2 of a float32 sum, which may lose what is added to 2³¹
        assert ours.bit_width.item() - theirs.bit_width.item() in (0, 1)
    else:
        assert ours.bit_width.item() == theirs.bit_width.item()
    for found, wanted in zip(our_gradients, their_gradients, strict=True):
        assert_close(found, wanted, relative=1e-3)


@pytest.mark.parametrize("name", WEIGHTED)
@settings(max_examples=2, deadline=None)
@given(seed=seeds)
def test_weighted_layers_with_quantized_input_and_output(name: str, seed: int) -> None:
    kind, args, options, shape = WEIGHTED[name]
    results = []
    for library, presets in LIBRARIES:
        layer = getattr(library, kind)(
            *args,
            **options,
            weight_bit_width=4,
            input_quant=presets.Int8ActPerTensorFloat,
            output_quant=presets.Int8ActPerTensorFloat,
            input_collect_stats_steps=1,
            output_collect_stats_steps=1,
            return_quant_tensor=True,
        )
        set_parameters(layer, seed)
        for step in range(3):
            layer.zero_grad()
            out = layer(tensor(seed + step, *shape))
            out.value.square().sum().backward()
        results.append((out, layer.weight.grad, layer.bias.grad))
    (ours, *our_gradients), (theirs, *their_gradients) = results
    assert_close(ours.value, theirs.value, relative=1e-6)
    assert_close(ours.scale, theirs.scale, relative=1e-6)
    for found, wanted in zip(our_gradients, their_gradients, strict=True):
        assert_close(found, wanted, relative=2e-3)


@settings(max_examples=30, deadline=None)
@given(
    seed=seeds,
    name=st.sampled_from(["linear", "conv2d", "conv2d, grouped", "conv2d, circular", "transposed conv2d"]),
    weight_quant=st.sampled_from(
        [
            "Int8WeightPerChannelFloat",
            "Int8WeightPerTensorFixedPoint",
            "Int8WeightPerTensorFloatMSE",
            "ShiftedUint8WeightPerTensorFloat",
            "SignedBinaryWeightPerTensorConst",
            "SignedTernaryWeightPerTensorConst",
        ]
    ),
    input_quant=st.sampled_from(
        [
            "Uint8ActPerTensorFloat",
            "Int8ActPerTensorFixedPoint",
            "ShiftedUint8ActPerTensorFloat",
            "SignedTernaryActPerTensorConst",
        ]
    ),
    bias_quant=st.sampled_from([None, "Int16Bias", "Int8BiasPerTensorFloatInternalScaling"]),
)
def test_named_quantizers_together(
    seed: int, name: str, weight_quant: str, input_quant: str, bias_quant: str | None
) -> None:
    """Two steps in which statistics are collected, one in which the scale is learned, and one in eval mode."""
    kind, args, options, shape = WEIGHTED[name]
    collecting = {} if "Ternary" in input_quant else {"input_collect_stats_steps": 2}
    results = []
    for library, presets in LIBRARIES:
        layer = getattr(library, kind)(
            *args,
            **options,
            **collecting,
            weight_quant=getattr(presets, weight_quant),
            input_quant=getattr(presets, input_quant),
            bias_quant=None if bias_quant is None else getattr(presets, bias_quant),
        )
        set_parameters(layer, seed)
        if bias_quant is not None:
            layer.bias_quant.init_tensor_quant()
        found = []
        for step in range(4):
            layer.train(step < 3)
            layer.zero_grad()
            x = tensor(seed + step, *shape).requires_grad_()
            out = layer(x)
            out.backward(tensor(seed + 10 + step, *out.shape))
            found.append((out.detach(), x.grad, layer.weight.grad, layer.bias.grad))
        results.append(found)
    for (ours, *our_gradients), (theirs, *their_gradients) in zip(*results, strict=True):
        assert_close(ours, theirs, relative=1e-6)
        for our_gradient, their_gradient in zip(our_gradients, their_gradients, strict=True):
            assert_close(our_gradient, their_gradient, relative=2e-3)


@settings(max_examples=20, deadline=None)
@given(seed=seeds, bits=st.integers(2, 8))
def test_embedding(seed: int, bits: int) -> None:
    results = []
    indices = torch.randint(0, 10, (3, 4), generator=torch.Generator().manual_seed(seed))
    for library, _ in LIBRARIES:
        layer = library.QuantEmbedding(10, 5, padding_idx=2, weight_bit_width=bits, return_quant_tensor=True)
        set_parameters(layer, seed)
        out = layer(indices)
        out.value.backward(tensor(seed, 3, 4, 5))
        results.append((out, layer.weight.grad))
    (ours, our_gradient), (theirs, their_gradient) = results
    assert torch.equal(ours.value, theirs.value)
    assert torch.equal(ours.scale, theirs.scale)
    assert ours.bit_width.item() == theirs.bit_width.item()
    assert_close(our_gradient, their_gradient, relative=1e-3)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("QuantTanh", {}), ("QuantSigmoid", {}), ("QuantHardTanh", {"min_val": -1.2, "max_val": 1.2}), ("QuantReLU", {})],
)
@settings(max_examples=10, deadline=None)
@given(seed=seeds, bits=st.integers(2, 8))
def test_activations(kind: str, options: dict[str, Any], seed: int, bits: int) -> None:
    layers = []
    for library, _ in LIBRARIES:
        # With bounds the scale starts from them, and no statistics are collected.
        statistics = {} if options else {"collect_stats_steps": 2}
        layers.append(getattr(library, kind)(**options, **statistics, bit_width=bits, return_quant_tensor=True))
    for step in range(4):
        results = []
        for layer in layers:
            layer.zero_grad()
            x = tensor(seed + step, 4, 50).requires_grad_()
            out = layer(x)
            out.value.backward(tensor(seed + 9, 4, 50))
            results.append((out, x.grad, [p.grad for p in layer.parameters() if p.grad is not None]))
        (ours, our_gradient, our_learned), (theirs, their_gradient, their_learned) = results
        assert torch.equal(ours.value, theirs.value)
        assert torch.equal(ours.scale, theirs.scale)
        between = x.detach().abs() < options.get("max_val", float("inf"))  # here the bounds clamp, there the quantizer
        assert_close(our_gradient[between], their_gradient[between], relative=1e-3)
        if step < 2 or options:
            continue  # nothing is learned while statistics are collected
        for found, wanted in zip(our_learned, their_learned, strict=True):
            limit = float(tensor(seed + 9, 4, 50).abs().sum()) * 2**-12 / 2 ** (bits - 1)
            assert float((found - wanted).abs()) <= limit


@pytest.mark.parametrize("kind", ["QuantUpsamplingNearest2d", "QuantUpsamplingBilinear2d"])
@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_upsampling(kind: str, seed: int) -> None:
    shape, results = (1, 2, 4, 5), []
    for library, _ in LIBRARIES:
        x = tensor(seed, *shape).requires_grad_()
        out = getattr(library, kind)(scale_factor=2)(entry_of(library, seed, shape)(x))
        out.value.backward(tensor(seed + 1, 1, 2, 8, 10))
        results.append((out, x.grad))
    (ours, our_gradient), (theirs, their_gradient) = results
    assert torch.equal(ours.value, theirs.value)
    assert torch.equal(ours.scale.flatten(), theirs.scale.flatten())
    assert ours.bit_width.item() == theirs.bit_width.item()
    assert_close(our_gradient, their_gradient, relative=1e-6)


@settings(max_examples=10, deadline=None)
@given(seed=seeds, bits=st.integers(2, 8))
def test_sums(seed: int, bits: int) -> None:
    """In the steady state; while collecting, ours looks at both operands at once."""
    layers = [
        library.QuantEltwiseAdd(
            input_quant=presets.Int8ActPerTensorFloat,
            output_quant=presets.Int8ActPerTensorFloat,
            input_bit_width=bits,
            input_collect_stats_steps=1,
            output_collect_stats_steps=1,
            return_quant_tensor=True,
        )
        for library, presets in LIBRARIES
    ]
    learned = [0.7, 1.9]
    for layer in layers:
        layer(tensor(seed, 3, 8), tensor(seed + 1, 3, 8))
        layer(tensor(seed, 3, 8), tensor(seed + 1, 3, 8))
        for proxy, threshold in zip((layer.input_quant, layer.output_quant), learned, strict=True):
            (parameter,) = proxy.parameters()
            nn.init.constant_(parameter, threshold)
    results = []
    for layer in layers:
        layer.zero_grad()
        x, y = tensor(seed + 2, 3, 8).requires_grad_(), tensor(seed + 3, 3, 8).requires_grad_()
        out = layer(x, y)
        out.value.backward(tensor(seed + 4, 3, 8))
        results.append((out, x.grad, y.grad))
    (ours, *our_gradients), (theirs, *their_gradients) = results
    assert torch.equal(ours.value, theirs.value)
    assert torch.equal(ours.scale, theirs.scale)
    for found, wanted in zip(our_gradients, their_gradients, strict=True):
        assert_close(found, wanted, relative=1e-3)


@settings(max_examples=10, deadline=None)
@given(seed=seeds, features=st.integers(2, 20), classes=st.integers(2, 20))
def test_hadamard_classifier_of_one_row(seed: int, features: int, classes: int) -> None:
    """Of several rows, Brevitas divides by the norm of all of them together."""
    results = []
    for library, _ in LIBRARIES:
        layer = library.HadamardClassifier(features, classes, return_quant_tensor=True)
        x = tensor(seed, 1, features).requires_grad_()
        out = layer(entry_of(library, seed, (4, features))(x))
        out.value.backward(tensor(seed + 1, 1, classes))
        results.append((out, x.grad, layer.scale.grad))
    (ours, *our_gradients), (theirs, *their_gradients) = results
    assert_close(ours.value, theirs.value, relative=1e-6)
    assert_close(ours.scale.flatten(), theirs.scale.flatten(), relative=1e-6)
    for found, wanted in zip(our_gradients, their_gradients, strict=True):
        assert_close(found, wanted, relative=1e-5)


@pytest.mark.parametrize(
    ("kind", "args", "side"),
    [("TruncAvgPool2d", (2,), 4), ("TruncAvgPool2d", (3, 1), 5), ("TruncAdaptiveAvgPool2d", (1,), 7)],
)
@settings(max_examples=10, deadline=None)
@given(seed=seeds, bits=st.integers(2, 6))
def test_average_pooling_in_integers(kind: str, args: tuple[int, ...], side: int, seed: int, bits: int) -> None:
    shape, results = (2, 3, side, side), []
    for library, _ in LIBRARIES:
        x = tensor(seed, *shape).requires_grad_()
        out = getattr(library, kind)(*args, bit_width=bits)(entry_of(library, seed, shape)(x))
        out.value.backward(tensor(seed + 1, *out.value.shape))
        results.append((out, x.grad))
    (ours, our_gradient), (theirs, their_gradient) = results
    assert_close(ours.value, theirs.value, relative=1e-6)
    assert_close(ours.scale.flatten(), theirs.scale.flatten(), relative=1e-6)
    assert ours.bit_width.item() == theirs.bit_width.item()
    assert_close(our_gradient, their_gradient, relative=1e-5)
