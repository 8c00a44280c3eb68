"""Our quantizers against Brevitas's, as black boxes: values, scales and gradients.

Where we differ on purpose, docs/differences.md says why.
"""

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
    st.integers(2, 8),
    st.booleans(),
    st.sampled_from(
        [
            (q.Int8WeightPerTensorFloat, bq.Int8WeightPerTensorFloat),
            (q.Int8WeightPerChannelFloat, bq.Int8WeightPerChannelFloat),
        ]
    ),
)
def test_weight_quantizers(seed: int, bits: int, narrow: bool, kinds: tuple[Any, Any]) -> None:
    weight, incoming = tensor(seed, 4, 3, 3, 3), tensor(seed + 1, 4, 3, 3, 3)
    results = []
    for library, kind in ((qnn, kinds[0]), (bnn, kinds[1])):
        layer = library.QuantConv2d(
            3, 4, 3, bias=False, weight_quant=kind, weight_bit_width=bits, weight_narrow_range=narrow
        )
        with torch.no_grad():
            layer.weight.copy_(weight)
        layer.weight_quant.init_tensor_quant()
        out = layer.quant_weight()
        out.value.backward(incoming)
        results.append((out, layer.weight.grad))
    (ours, our_grad), (theirs, their_grad) = results
    assert torch.equal(ours.value, theirs.value)
    assert torch.equal(ours.scale.flatten(), theirs.scale.flatten())
    assert ours.bit_width.item() == theirs.bit_width.item()
    assert torch.equal(ours.int().float(), theirs.int().float())
    assert_close(our_grad, their_grad, relative=1e-3)


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(2, 8), st.booleans(), st.integers(1, 4))
def test_activation_quantizers_while_collecting_and_afterwards(seed: int, bits: int, signed: bool, steps: int) -> None:
    layers = [
        (lib.QuantIdentity if signed else lib.QuantReLU)(
            bit_width=bits, collect_stats_steps=steps, return_quant_tensor=True
        )
        for lib in (qnn, bnn)
    ]
    for step in range(steps + 2):
        results = []
        for layer in layers:
            x = tensor(seed + step, 4, 300, scale=1 + step).requires_grad_()
            out = layer(x)
            out.value.backward(tensor(seed, 4, 300))
            learned = [p.grad for p in layer.parameters() if p.grad is not None]
            results.append((out, x.grad, learned))
            layer.zero_grad()
        (ours, our_grad, our_learned), (theirs, their_grad, their_learned) = results
        assert torch.equal(ours.scale, theirs.scale), step
        assert torch.equal(ours.value, theirs.value), step
        assert_close(our_grad, their_grad, relative=1e-3)
        if step >= steps:
            # The residual of each element is kept in float16: half a unit in the last of 11 bits of at most 1.
            largest = 2 ** (bits - 1) if signed else 2**bits - 1
            limit = float(tensor(seed, 4, 300).abs().sum()) * 2**-12 / largest
            assert float((our_learned[0] - their_learned[0]).abs()) <= limit
    for layer in layers:
        layer.eval()
    x = tensor(seed + 99, 4, 300)
    ours, theirs = (layer(x) for layer in layers)
    assert torch.equal(ours.value, theirs.value)
    assert ours.signed == bool(theirs.signed)


@settings(max_examples=15, deadline=None)
@given(seeds, st.integers(2, 8))
def test_eval_mode_before_the_statistics_are_complete(seed: int, bits: int) -> None:
    layers = [lib.QuantIdentity(bit_width=bits, return_quant_tensor=True) for lib in (qnn, bnn)]
    x = tensor(seed, 64)
    for trained in range(3):
        ours, theirs = (layer.eval()(x) for layer in layers)
        assert torch.equal(ours.value, theirs.value), trained
        for layer in layers:
            layer.train()(tensor(seed + trained, 64))


@settings(max_examples=25, deadline=None)
@given(
    seeds,
    st.sampled_from([(q.Int8Bias, bq.Int8Bias), (q.Int16Bias, bq.Int16Bias), (q.Int32Bias, bq.Int32Bias)]),
    st.booleans(),
)
def test_layers_with_quantized_bias_and_the_grid_of_their_accumulator(
    seed: int, biases: tuple[Any, Any], per_channel: bool
) -> None:
    weight, bias, x = tensor(seed, 5, 16), tensor(seed + 1, 5), tensor(seed + 2, 7, 16)
    results = []
    for library, presets, bias_quant in ((qnn, q, biases[0]), (bnn, bq, biases[1])):
        layer = library.QuantLinear(
            16,
            5,
            bias=True,
            weight_bit_width=4,
            weight_scaling_per_output_channel=per_channel,
            bias_quant=bias_quant,
            input_quant=presets.Int8ActPerTensorFloat,
            return_quant_tensor=True,
        )
        with torch.no_grad():
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
        layer.weight_quant.init_tensor_quant()
        out = layer(x)
        out.value.sum().backward()
        results.append((out, layer.weight.grad, layer.bias.grad))
    (ours, *our_grads), (theirs, *their_grads) = results
    assert torch.equal(ours.value, theirs.value)
    assert torch.equal(ours.scale.flatten(), theirs.scale.flatten())
    assert ours.bit_width.item() == theirs.bit_width.item()
    assert_close(our_grads[0], their_grads[0], relative=1e-3)
    assert_close(our_grads[1], their_grads[1], relative=1e-6)


@pytest.mark.parametrize(
    ("kind", "args", "shape"),
    [
        ("QuantConv1d", (4, 6, 3), (2, 4, 9)),
        ("QuantConv2d", (4, 6, 3), (2, 4, 9, 9)),
        ("QuantConv2d", (4, 8, 3, 1, 0, 1, 4), (2, 4, 9, 9)),
        ("QuantConv3d", (2, 3, 2), (1, 2, 4, 4, 4)),
        ("QuantLinear", (6, 4), (2, 6)),
    ],
)
def test_accumulators_of_all_layers(kind: str, args: tuple[int, ...], shape: tuple[int, ...]) -> None:
    results = []
    for library, presets in ((qnn, q), (bnn, bq)):
        torch.manual_seed(0)
        extra = {"bias": False}
        layer = getattr(library, kind)(
            *args, **extra, weight_bit_width=3, input_quant=presets.Int8ActPerTensorFloat, return_quant_tensor=True
        )
        with torch.no_grad():
            layer.weight.copy_(tensor(1, *layer.weight.shape))
        layer.weight_quant.init_tensor_quant()
        results.append(layer(tensor(2, *shape)))
    ours, theirs = results
    assert torch.equal(ours.value, theirs.value)
    assert ours.bit_width.item() == theirs.bit_width.item()
    assert torch.equal(ours.scale.flatten(), theirs.scale.flatten())
