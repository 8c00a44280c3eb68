"""Our searches for the grid with the smallest squared error against Brevitas's, as black boxes."""

from typing import Any

import brevitas.nn as bnn
import brevitas.quant as bq
import brevitas.quant.scaled_int as their_integers
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

import quant_core.quant as q
import quant_nn as qnn

seeds = st.integers(0, 10_000)


def tensor(seed: int, *shape: int, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale + shift


def assert_close(found: Tensor, wanted: Tensor, *, relative: float) -> None:
    """Equal up to a share of the largest element."""
    limit = relative * max(float(wanted.abs().max()), 1e-12)
    assert float((found - wanted).abs().max()) <= limit


@settings(max_examples=40, deadline=None)
@given(
    seeds,
    st.sampled_from(["Int8Act", "Uint8Act", "ShiftedUint8Act"]),
    st.sampled_from(["Float", "FixedPoint"]),
    st.integers(2, 8),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.4]),
)
def test_activations_while_collecting_and_afterwards(
    seed: int, kind: str, scale: str, bits: int, steps: int, shift: float
) -> None:
    assume(not (kind == "ShiftedUint8Act" and scale == "FixedPoint"))  # see docs/differences.md
    name = f"{kind}PerTensor{scale}MSE"
    steps = 1 if kind == "ShiftedUint8Act" else steps  # see docs/differences.md for the steps after the first
    layers: list[Any] = [
        library.QuantIdentity(
            getattr(presets, name), bit_width=bits, collect_stats_steps=steps, return_quant_tensor=True
        )
        for library, presets in ((qnn, q), (bnn, bq))
    ]
    for step in range(steps + 2):
        results = []
        for layer in layers:
            x = tensor(seed + step, 4, 100, scale=1 + step, shift=shift).requires_grad_()
            out = layer(x)
            out.value.backward(tensor(seed, 4, 100))
            results.append((out, x.grad))
            layer.zero_grad()
        (ours, our_grad), (theirs, their_grad) = results
        assert torch.equal(ours.scale, theirs.scale), step
        assert torch.equal(ours.zero_point, theirs.zero_point), step
        assert torch.equal(ours.value, theirs.value), step
        assert_close(our_grad, their_grad, relative=1e-3)


@settings(max_examples=40, deadline=None)
@given(
    seeds,
    st.sampled_from(["Int8Weight", "ShiftedUint8Weight"]),
    st.sampled_from(["PerTensor", "PerChannel"]),
    st.sampled_from(["Float", "FixedPoint"]),
    st.integers(2, 8),
)
def test_weights(seed: int, kind: str, grain: str, scale: str, bits: int) -> None:
    """Where the search starts learning, and the gradients of what is learned."""
    shifted = kind == "ShiftedUint8Weight"
    assume(not (shifted and scale == "FixedPoint"))  # there is none
    name = f"{kind}{grain}{scale}MSE"
    results = []
    for library, presets in ((qnn, q), (bnn, bq)):
        layer = library.QuantLinear(40, 3, bias=False, weight_quant=getattr(presets, name), weight_bit_width=bits)
        with torch.no_grad():
            layer.weight.copy_(tensor(seed, 3, 40, shift=0.2))
        layer.weight_quant.init_tensor_quant()
        layer.quant_weight()
        out = layer.quant_weight()
        out.value.backward(tensor(seed + 1, 3, 40))
        quant = layer.weight_quant.tensor_quant
        learned = [quant.scaling_impl.value.grad, *([quant.zero_point_impl.value.grad] if shifted else [])]
        results.append((out, [layer.weight.grad, *learned]))
    (ours, our_grads), (theirs, their_grads) = results
    assert torch.equal(ours.scale.flatten(), theirs.scale.flatten())
    assert torch.equal(ours.zero_point.flatten(), theirs.zero_point.flatten())
    assert torch.equal(ours.value, theirs.value)
    assert_close(our_grads[0], their_grads[0], relative=1e-3)
    # What is rounded of each element is kept in float16: half a unit in the last of 11 bits, of at most 1.
    limit = float(tensor(seed + 1, 3, 40).abs().sum()) * 2**-12 * max(2 / 2**bits, float(ours.scale.detach().max()))
    for found, wanted in zip(our_grads[1:], their_grads[1:], strict=True):
        assert float((found.flatten() - wanted.flatten()).abs().max()) <= limit


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(3, 8), st.booleans())
def test_half_quadratic_scales(seed: int, bits: int, per_channel: bool) -> None:
    """Of linear layers: theirs per channel mixes the channels of convolutions."""
    name = f"Int8WeightPer{'Channel' if per_channel else 'Tensor'}FloatHQO"
    results = []
    for library, presets in ((qnn, q), (bnn, their_integers)):
        layer = library.QuantLinear(40, 3, bias=False, weight_quant=getattr(presets, name), weight_bit_width=bits)
        with torch.no_grad():
            layer.weight.copy_(tensor(seed, 3, 40))
        layer.weight_quant.init_tensor_quant()
        results.append(layer.quant_weight())
    ours, theirs = results
    torch.testing.assert_close(ours.scale.flatten(), theirs.scale.flatten(), rtol=1e-5, atol=0)
