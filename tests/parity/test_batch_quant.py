"""Activations scaled batch by batch, and from given limits, against Brevitas's, as black boxes."""

from typing import Any

import brevitas.nn as bnn
import brevitas.quant as bq
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


def compare_step(layers: list[Any], x: Tensor, incoming: Tensor) -> None:
    results = []
    for layer in layers:
        leaf = x.clone().requires_grad_()
        layer.zero_grad()
        out = layer(leaf)
        out.value.backward(incoming)
        learned = [torch.zeros(()) if p.grad is None else p.grad for p in layer.parameters()]
        results.append((out, leaf.grad, learned))
    (own, own_grad, own_learned), (other, other_grad, other_learned) = results
    assert torch.equal(own.scale, other.scale)
    assert torch.equal(own.value, other.value)
    assert_close(own_grad, other_grad, relative=1e-3)
    assert len(own_learned) == len(other_learned)
    # The residual of each element is kept in float16: half a unit in the last of 11 bits of at most 1.
    limit = float(incoming.abs().sum()) * 2**-12 * own.scale.item() * 2
    for found, wanted in zip(own_learned, other_learned, strict=True):
        assert float((found - wanted).abs()) <= limit + 1e-5 * float(wanted.abs())


@settings(max_examples=40, deadline=None)
@given(
    seeds,
    st.integers(2, 8),
    st.booleans(),
    st.sampled_from([(2, 3, 9), (2, 3, 5, 4)]),
    st.sampled_from([None, 0.1, 0.6]),
    st.sampled_from([None, 1.0, 0.8]),
)
def test_batch_quantizers(
    seed: int, bits: int, signed: bool, shape: tuple[int, ...], momentum: float | None, rescaling: float | None
) -> None:
    name = f"{'Int8' if signed else 'Uint8'}ActPerTensorFloatBatchQuant{len(shape) - 2}d"
    layers = [
        library.QuantIdentity(
            getattr(presets, name),
            bit_width=bits,
            scaling_stats_momentum=momentum,
            scaling_affine_rescaling_init=rescaling,
            return_quant_tensor=True,
        )
        for library, presets in ((qnn, q), (bnn, bq))
    ]
    for step in range(4):
        compare_step(layers, tensor(seed + step, *shape, scale=1 + step), tensor(seed, *shape))
    x = tensor(seed + 99, *shape)
    own, other = (layer.eval()(x) for layer in layers)
    assert torch.equal(own.scale, other.scale)
    assert torch.equal(own.value, other.value)


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(2, 8), st.floats(-10, -0.125, width=32), st.floats(0.125, 10, width=32), st.booleans())
def test_activations_from_given_limits(seed: int, bits: int, low: float, high: float, signed: bool) -> None:
    name, limits = (
        ("Int8ActPerTensorFloatMinMaxInit", {"min_val": low, "max_val": high})
        if signed
        else ("Uint8ActPerTensorFloatMaxInit", {"max_val": high})
    )
    extra = {} if signed else {"min_val": 0.0}  # theirs asks for it, and takes the larger magnitude
    layers = [
        qnn.QuantIdentity(getattr(q, name), bit_width=bits, return_quant_tensor=True, **limits),
        bnn.QuantIdentity(getattr(bq, name), bit_width=bits, return_quant_tensor=True, **limits, **extra),
    ]
    for step in range(3):
        compare_step(layers, tensor(seed + step, 4, 300, scale=3), tensor(seed, 4, 300))
