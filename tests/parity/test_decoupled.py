"""Decoupled quantizers against Brevitas's: values, scales and gradients of weight and learned scale."""

from typing import Any

import brevitas.nn as bnn
import brevitas.quant as bq
import torch
from brevitas.quant.fixed_point import Int4WeightPerTensorFixedPointDecoupled
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import quant_core.quant as q
import quant_nn as qnn

KINDS = [
    (q.Int4WeightPerTensorFloatDecoupled, bq.Int4WeightPerTensorFloatDecoupled),
    (q.Int4WeightPerTensorFixedPointDecoupled, Int4WeightPerTensorFixedPointDecoupled),
    (q.Int8WeightPerChannelFloatDecoupled, bq.Int8WeightPerChannelFloatDecoupled),
]


def tensor(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def assert_close(found: Tensor, wanted: Tensor) -> None:
    assert (found - wanted).abs().max() <= 1e-4 * wanted.abs().max().clamp(min=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(KINDS), st.integers(2, 8), st.floats(0.5, 2, width=32), st.booleans())
def test_weights(seed: int, presets: tuple[Any, Any], bits: int, factor: float, transposed: bool) -> None:
    """At the start both scales are equal; after a step the learned one has gone its own way."""
    name, shape = ("QuantConvTranspose2d", (3, 5, 3, 3)) if transposed else ("QuantConv2d", (5, 3, 3, 3))
    weight, incoming = tensor(seed, *shape), tensor(seed + 1, *shape)
    results = []
    for library, preset in zip((qnn, bnn), presets, strict=True):
        layer = getattr(library, name)(3, 5, 3, bias=False, weight_quant=preset, weight_bit_width=bits)
        with torch.no_grad():
            layer.weight.copy_(weight)
        layer.weight_quant.init_tensor_quant()
        found: list[Any] = []
        (learned,) = layer.weight_quant.parameters()
        for change in (1.0, factor):
            with torch.no_grad():
                learned.mul_(change)
            layer.zero_grad()
            out = layer.quant_weight()
            out.value.backward(incoming)
            found.append((out.value.detach(), out.scale.flatten().detach(), layer.weight.grad, learned.grad.flatten()))
        results.append(found)
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])
        assert_close(ours[2], theirs[2])
        assert_close(ours[3], theirs[3])
