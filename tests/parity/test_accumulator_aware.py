"""Normalized and accumulator-aware weights against Brevitas's: values, scales and gradients.

Brevitas learns the scale twice, once where it divides and once where it multiplies; here it is one parameter, whose gradient is
the sum of both. The bound is lower here by a share of 2⁻¹⁶, so that an integer may be one step smaller where it lies at a border.
"""

from typing import Any

import brevitas.nn as bnn
import brevitas.quant as bq
import torch
from brevitas.quant.scaled_int import Int8WeightNormL2PerChannelFixedPoint as TheirWeightNorm
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

import quant_core.quant as q
import quant_nn as qnn
from quant_nn.cost import AccumulatorExcess

AWARE = ["Int8AccumulatorAwareWeightQuant", "Int8AccumulatorAwareZeroCenterWeightQuant"]
seeds = st.integers(0, 10_000)


def tensor(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gradients(layer: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Of the weight, the length, and the scale (in Brevitas the sum of its two)."""
    learned = {name: p.grad for name, p in layer.weight_quant.named_parameters()}
    scales = [
        grad
        for name, grad in learned.items()
        if name.endswith("scaling_impl.value") and "pre_scaling_impl.value" not in name
    ]
    (length,) = (grad for name, grad in learned.items() if name.endswith("pre_scaling_impl.value"))
    return layer.weight.grad, length, torch.stack(scales).sum(0)


def assert_close(found: Tensor, wanted: Tensor, size: float) -> None:
    assert (found - wanted).abs().max() <= 2e-4 * max(float(wanted.abs().max()), size)


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(3, 8), st.floats(-0.5, 0.5, width=32))
def test_normalized_weights(seed: int, bits: int, change: float) -> None:
    weight, incoming = tensor(seed, 4, 3, 3, 3), tensor(seed + 1, 4, 3, 3, 3)
    results = []
    for library, preset in ((qnn, q.Int8WeightNormL2PerChannelFixedPoint), (bnn, TheirWeightNorm)):
        layer = library.QuantConv2d(3, 4, 3, bias=False, weight_quant=preset, weight_bit_width=bits)
        with torch.no_grad():
            layer.weight.copy_(weight)
        layer.weight_quant.init_tensor_quant()
        with torch.no_grad():
            for name, parameter in layer.weight_quant.named_parameters():
                parameter.add_(change if name.endswith("pre_scaling_impl.value") else -change / 4)
        out = layer.quant_weight()
        out.value.backward(incoming)
        results.append((out, gradients(layer)))
    (ours, grads), (theirs, their_grads) = results
    assert torch.equal(ours.scale.flatten(), theirs.scale.flatten())
    levels = (theirs.value / theirs.scale).detach()
    assume(torch.equal((ours.value / ours.scale).round(), levels.round()))
    assert torch.allclose(ours.value, theirs.value, rtol=1e-6)
    for found, wanted in zip(grads, their_grads, strict=True):
        assert_close(found, wanted, float(incoming.abs().sum() * theirs.scale.detach().max()) / 10)


@settings(max_examples=60, deadline=None)
@given(seeds, st.sampled_from(AWARE), st.sampled_from([32, 20, 16, 13]), st.booleans())
def test_accumulator_aware_weights(seed: int, name: str, bits: int, signed: bool) -> None:
    weight, incoming, x = tensor(seed, 4, 3, 3, 3), tensor(seed + 1, 4, 3, 3, 3), tensor(seed + 2, 2, 3, 5, 5)
    results = []
    for library, presets in ((qnn, q), (bnn, bq)):
        layer = library.QuantConv2d(
            3,
            4,
            3,
            bias=False,
            weight_quant=getattr(presets, name),
            weight_accumulator_bit_width=bits,
            input_quant=presets.Int8ActPerTensorFloat if signed else presets.Uint8ActPerTensorFloat,
            return_quant_tensor=True,
        )
        with torch.no_grad():
            layer.weight.copy_(weight)
        layer.weight_quant.init_tensor_quant()
        out = layer.weight_quant(layer.weight, layer.input_quant(x))
        out.value.backward(incoming)
        results.append((out, gradients(layer)))
    (ours, grads), (theirs, their_grads) = results
    assert torch.equal(ours.scale.flatten(), theirs.scale.flatten())
    mine, wanted = (out.value.detach() / out.scale.detach() for out in (ours, theirs))
    moved = mine.round() != wanted.round()
    assert (mine.abs() <= wanted.abs() + 1e-3)[moved].all()
    assert (mine - wanted).abs().max() <= 1.001
    assert moved.sum() <= (0 if bits == 32 and name == AWARE[0] else 2)
    if not moved.any():
        for found, wanted_grad in zip(grads, their_grads, strict=True):
            assert_close(found, wanted_grad, float(incoming.abs().sum() * theirs.scale.detach().max()) / 10)


@settings(max_examples=20, deadline=None)
@given(seeds, st.sampled_from(AWARE), st.sampled_from([32, 16, 13]), st.booleans())
def test_what_lies_beyond_the_bound(seed: int, name: str, bits: int, signed: bool) -> None:
    """There it is computed from the parts of a quantizer; the bound is lower here by a share of 2⁻¹⁶."""
    results = []
    for library, presets in ((qnn, q), (bnn, bq)):
        layer = library.QuantLinear(
            40,
            3,
            bias=False,
            weight_quant=getattr(presets, name),
            weight_accumulator_bit_width=bits,
            input_quant=presets.Int8ActPerTensorFloat if signed else presets.Uint8ActPerTensorFloat,
        )
        with torch.no_grad():
            layer.weight.copy_(tensor(seed, 3, 40))
        layer.weight_quant.init_tensor_quant()
        layer(tensor(seed + 1, 2, 40))
        part = layer.weight_quant.tensor_quant.pre_scaling_impl
        if library is qnn:
            excess, scaling = (
                AccumulatorExcess(layer, torch.ones(1, 40))(),
                layer.weight_quant.tensor_quant.scaling_impl,
            )
        else:
            length, scaling = part.restrict_clamp_scaling(part.value), part.scaling_impl
            bound = part.calc_max_l1_norm(torch.tensor(8.0), signed) * scaling(layer.weight)
            excess = torch.relu(length - bound).sum()
        layer.zero_grad()
        excess.backward()
        results.append((excess.detach(), part.value.grad, scaling.value.grad))
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
