"""Our quantizers with a zero-point against Brevitas's, as black boxes: values, grids and gradients."""

from typing import Any

import brevitas.nn as bnn
import brevitas.quant as bq
import brevitas.quant.shifted_scaled_int as their_shifted
import torch
from brevitas.core.zero_point import ParameterZeroPoint
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import quant_core.components as components
import quant_core.quant as q
import quant_nn as qnn

seeds = st.integers(0, 10_000)


def tensor(seed: int, *shape: int, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale + shift


def assert_close(found: Tensor, wanted: Tensor, *, relative: float) -> None:
    """Equal up to a share of the largest element."""
    limit = relative * max(float(wanted.abs().max()), 1e-12)
    assert float((found - wanted).abs().max()) <= limit


def weight_layers(names: tuple[Any, Any], weight: Tensor, **options: Any) -> list[Any]:
    layers = []
    for library, kind in zip((qnn, bnn), names, strict=True):
        layer = library.QuantConv2d(weight.shape[1], weight.shape[0], 3, bias=False, weight_quant=kind, **options)
        with torch.no_grad():
            layer.weight.copy_(weight)
        layer.weight_quant.init_tensor_quant()
        layers.append(layer)
    return layers


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(2, 8), st.booleans(), st.booleans(), st.sampled_from([0.0, 0.3, 2.0]), st.booleans())
def test_weights(seed: int, bits: int, per_channel: bool, narrow: bool, shift: float, quantized: bool) -> None:
    """Both signs, all positive, and in between."""
    weight, incoming = tensor(seed, 4, 3, 3, 3, shift=shift), tensor(seed + 1, 4, 3, 3, 3)
    name = f"ShiftedUint8WeightPer{'Channel' if per_channel else 'Tensor'}Float"
    layers = weight_layers(
        (getattr(q, name), getattr(bq, name)),
        weight,
        weight_bit_width=bits,
        weight_narrow_range=narrow,
        weight_quantize_zero_point=quantized,
    )
    results = []
    for layer in layers:
        out = layer.quant_weight()
        out.value.backward(incoming)
        results.append((out, layer.weight.grad))
    (ours, our_grad), (theirs, their_grad) = results
    assert torch.equal(ours.scale.flatten(), theirs.scale.flatten())
    assert torch.equal(ours.zero_point.flatten(), theirs.zero_point.flatten())
    assert torch.equal(ours.value, theirs.value)
    assert ours.bit_width.item() == theirs.bit_width.item()
    assert ours.signed == bool(theirs.signed)
    assert_close(our_grad, their_grad, relative=1e-3)
    if quantized:
        assert ours.is_valid
        assert torch.equal(ours.int().float(), theirs.int().float())


def activations(bits: int, steps: int, **options: Any) -> list[Any]:
    return [
        library.QuantIdentity(
            presets.ShiftedUint8ActPerTensorFloat,
            bit_width=bits,
            collect_stats_steps=steps,
            return_quant_tensor=True,
            **options,
        )
        for library, presets in ((qnn, q), (bnn, bq))
    ]


def quantizer(layer: Any) -> Any:
    """The tensor quantizer of either library."""
    proxy = getattr(layer.act_quant, "fused_activation_quant_proxy", layer.act_quant)
    return proxy.tensor_quant


def compare_step(layers: list[Any], x: Tensor, incoming: Tensor, levels: int) -> None:
    """One training step of both: values, grids, and gradients of the input and of what is learned."""
    results = []
    for layer in layers:
        leaf = x.clone().requires_grad_()
        out = layer(leaf)
        out.value.backward(incoming)
        quant = quantizer(layer)
        results.append((out, leaf.grad, quant.scaling_impl.value.grad, quant.zero_point_impl.value.grad))
        layer.zero_grad()
    (ours, *our_grads), (theirs, *their_grads) = results
    assert torch.equal(ours.scale, theirs.scale)
    assert torch.equal(ours.zero_point, theirs.zero_point)
    assert torch.equal(ours.value, theirs.value)
    assert_close(our_grads[0], their_grads[0], relative=1e-3)
    # What is rounded of each element is kept in float16: half a unit in the last of 11 bits, of at most 1.
    limit = float(incoming.abs().sum()) * 2**-12 / levels * 4
    for found, wanted in zip(our_grads[1:], their_grads[1:], strict=True):
        found, wanted = (torch.zeros(()) if grad is None else grad for grad in (found, wanted))
        assert float((found - wanted).abs().max()) <= limit + 1e-5 * float(wanted.abs().max())


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(2, 8), st.integers(1, 4), st.sampled_from([-1.0, 0.0, 5.0]), st.booleans(), st.booleans())
def test_activations_while_collecting_and_afterwards(
    seed: int, bits: int, steps: int, shift: float, quantized: bool, narrow: bool
) -> None:
    layers = activations(bits, steps, quantize_zero_point=quantized, narrow_range=narrow, high_percentile_q=99.0)
    for step in range(steps + 3):
        compare_step(
            layers, tensor(seed + step, 4, 300, scale=1 + step, shift=shift), tensor(seed, 4, 300), 2**bits - 1
        )
    x = tensor(seed + 99, 4, 300)
    ours, theirs = (layer.eval()(x) for layer in layers)
    assert torch.equal(ours.value, theirs.value)
    assert torch.equal(ours.zero_point, theirs.zero_point)


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(2, 8))
def test_activations_per_channel(seed: int, bits: int) -> None:
    shared = {"scaling_per_output_channel": True, "per_channel_broadcastable_shape": (1, 3, 1)}
    ours = qnn.QuantIdentity(
        q.ShiftedUint8ActPerTensorFloat, bit_width=bits, collect_stats_steps=2, return_quant_tensor=True, **shared
    )
    theirs = bnn.QuantIdentity(
        bq.ShiftedUint8ActPerTensorFloat,
        bit_width=bits,
        collect_stats_steps=2,
        return_quant_tensor=True,
        scaling_stats_permute_dims=(1, 0, 2),
        **shared,
    )
    for step in range(4):
        compare_step([ours, theirs], tensor(seed + step, 5, 3, 60), tensor(seed, 5, 3, 60), 2**bits - 1)


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(2, 8))
def test_eval_mode_before_the_statistics_are_complete(seed: int, bits: int) -> None:
    layers = activations(bits, 300)
    x = tensor(seed, 64)
    for trained in range(3):
        ours, theirs = (layer.eval()(x) for layer in layers)
        assert torch.equal(ours.value, theirs.value), trained
        for layer in layers:
            layer.train()(tensor(seed + trained, 64))


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(2, 8), st.floats(-3, 3, width=32), st.booleans(), st.booleans())
def test_a_learned_zero_point(seed: int, bits: int, start: float, quantized: bool, signed: bool) -> None:
    class Theirs(bq.ShiftedUint8ActPerTensorFloat):  # type: ignore[misc]
        zero_point_impl = ParameterZeroPoint

    class Ours(q.ShiftedUint8ActPerTensorFloat):
        zero_point_impl = components.ParameterZeroPoint

    layers = [
        library.QuantIdentity(
            kind,
            bit_width=bits,
            signed=signed,
            collect_stats_steps=1,
            zero_point_init=start,
            quantize_zero_point=quantized,
            return_quant_tensor=True,
        )
        for library, kind in ((qnn, Ours), (bnn, Theirs))
    ]
    for step in range(3):
        compare_step(layers, tensor(seed + step, 4, 100), tensor(seed, 4, 100), 2 ** (bits - 1) if signed else 2**bits)


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(2, 8), st.booleans(), st.booleans())
def test_groups_of_input_channels(seed: int, bits: int, convolution: bool, searched: bool) -> None:
    """Theirs spreads the zero-point of a group as well. Where weights have both signs; all below 0 has another scale there."""
    name = "ShiftedUint8WeightPerGroupFloatHQO" if searched else "ShiftedUint8WeightGroupQuantFloat"
    kind, sizes = ("QuantConv2d", (64, 3, 2)) if convolution else ("QuantLinear", (64, 3))
    options: dict[str, Any] = {} if searched else {"weight_group_size": 16}
    results = []
    for library, presets in ((qnn, q), (bnn, their_shifted)):
        preset = getattr(presets, name)
        layer = getattr(library, kind)(*sizes, bias=False, weight_quant=preset, weight_bit_width=bits, **options)
        with torch.no_grad():
            layer.weight.copy_(tensor(seed, *layer.weight.shape)).select(1, 0).abs_()
            layer.weight[:, ::16].abs_()
        layer.weight_quant.init_tensor_quant()
        out = layer.quant_weight()
        out.value.backward(tensor(seed + 1, *layer.weight.shape))
        results.append((out.value, out.scale, out.zero_point, layer.weight.grad))
    ours, theirs = results
    assert torch.equal(ours[1], theirs[1])
    for found, wanted in zip(ours, theirs, strict=True):  # a mean over rows has the order of its terms for a last bit
        assert_close(found, wanted, relative=1e-3 if wanted is theirs[3] else 1e-6 * searched)


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(2, 8), st.booleans())
def test_half_quadratic_zero_points_of_weights(seed: int, bits: int, per_channel: bool) -> None:
    """Of linear layers: theirs per channel fails for convolutions."""
    name = f"ShiftedUint8WeightPer{'Channel' if per_channel else 'Tensor'}FloatHQO"
    results = []
    for library, presets in ((qnn, q), (bnn, bq)):
        layer = library.QuantLinear(40, 3, bias=False, weight_quant=getattr(presets, name), weight_bit_width=bits)
        with torch.no_grad():
            layer.weight.copy_(tensor(seed, 3, 40, shift=0.2))
        layer.weight_quant.init_tensor_quant()
        results.append(layer.quant_weight())
    ours, theirs = results
    assert torch.equal(ours.scale.flatten(), theirs.scale.flatten())
    assert torch.equal(ours.zero_point.flatten(), theirs.zero_point.flatten())
    assert torch.equal(ours.value, theirs.value)
