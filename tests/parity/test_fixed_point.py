"""Our fixed-point quantizers against Brevitas's, as black boxes: values, scales and gradients."""

from typing import Any

import brevitas.nn as bnn
import brevitas.quant as bq
import brevitas.quant.fixed_point as their_fixed_point
import torch
from brevitas.core.function_wrapper import CeilSte, FloorSte, RoundSte
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import quant_core.quant as q
import quant_nn as qnn

seeds = st.integers(0, 10_000)
ROUNDINGS = {"CEIL": CeilSte, "FLOOR": FloorSte, "ROUND": RoundSte}
roundings = st.sampled_from(sorted(ROUNDINGS))


def tensor(seed: int, *shape: int, scale: float = 1.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def assert_close(found: Tensor, wanted: Tensor, *, relative: float) -> None:
    """Equal up to a share of the largest element."""
    limit = relative * max(float(wanted.abs().max()), 1e-12)
    assert float((found - wanted).abs().max()) <= limit


def is_power_of_two(scale: Tensor) -> bool:
    return bool((torch.frexp(scale).mantissa == 0.5).all())


def set_weight(layer: Any, weight: Tensor) -> Any:
    with torch.no_grad():
        layer.weight.copy_(weight)
    layer.weight_quant.init_tensor_quant()
    return layer


@settings(max_examples=40, deadline=None)
@given(
    seeds, st.integers(2, 8), st.booleans(), st.booleans(), roundings, st.sampled_from([0.01, 1.0, 30.0]), st.booleans()
)
def test_weights(
    seed: int, bits: int, narrow: bool, channels: bool, mode: str, spread: float, channels_by_name: bool
) -> None:
    weight, incoming = tensor(seed, 4, 3, 3, 3, scale=spread), tensor(seed + 1, 4, 3, 3, 3)
    by_name = channels and channels_by_name
    ours = qnn.QuantConv2d(
        3,
        4,
        3,
        bias=False,
        weight_quant=q.Int8WeightPerChannelFixedPoint if by_name else q.Int8WeightPerTensorFixedPoint,
        weight_bit_width=bits,
        weight_narrow_range=narrow,
        weight_scaling_per_output_channel=channels,
        weight_restrict_rounding_mode=mode,
    )
    theirs = bnn.QuantConv2d(
        3,
        4,
        3,
        bias=False,
        weight_quant=bq.Int8WeightPerTensorFixedPoint,
        weight_bit_width=bits,
        weight_narrow_range=narrow,
        weight_scaling_per_output_channel=channels,
        weight_restrict_value_float_to_int_impl=ROUNDINGS[mode],
    )
    results = []
    for layer in (ours, theirs):
        set_weight(layer, weight)
        out = layer.quant_weight()
        out.value.backward(incoming)
        results.append((out, layer.weight.grad))
    (own, own_grad), (other, other_grad) = results
    assert torch.equal(own.scale.flatten(), other.scale.flatten())
    assert is_power_of_two(own.scale)
    assert torch.equal(own.value, other.value)
    assert torch.equal(own.int().float(), other.int().float())
    assert_close(own_grad, other_grad, relative=1e-3)


def compare_step(layers: list[Any], x: Tensor, incoming: Tensor, bits: int) -> None:
    results = []
    for layer in layers:
        leaf = x.clone().requires_grad_()
        layer.zero_grad()
        out = layer(leaf)
        out.value.backward(incoming)
        (parameter,) = layer.parameters()
        results.append((out, leaf.grad, torch.zeros(()) if parameter.grad is None else parameter.grad))
    (own, own_grad, own_learned), (other, other_grad, other_learned) = results
    assert torch.equal(own.scale, other.scale)
    assert torch.equal(own.value, other.value)
    assert_close(own_grad, other_grad, relative=1e-3)
    # The residual of each element is kept in float16: half a unit in the last of 11 bits of at most 1.
    limit = float(incoming.abs().sum()) * 2**-12 * own.scale.item() * 2
    assert float((own_learned - other_learned).abs()) <= limit + 1e-5 * float(other_learned.abs())


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(2, 8), st.booleans(), st.integers(1, 4), st.sampled_from([0.1, 0.7, None]))
def test_activations_while_collecting_and_afterwards(
    seed: int, bits: int, signed: bool, steps: int, momentum: float | None
) -> None:
    name = f"{'Int8' if signed else 'Uint8'}ActPerTensorFixedPoint"
    layers = [
        library.QuantIdentity(
            getattr(presets, name),
            bit_width=bits,
            collect_stats_steps=steps,
            scaling_stats_momentum=momentum,
            high_percentile_q=99.0,
            return_quant_tensor=True,
        )
        for library, presets in ((qnn, q), (bnn, bq))
    ]
    for step in range(steps + 3):
        compare_step(layers, tensor(seed + step, 4, 300, scale=1 + step), tensor(seed, 4, 300), bits)
    own, other = (layer.eval()(tensor(seed + 99, 4, 300)) for layer in layers)
    assert torch.equal(own.value, other.value)
    assert torch.equal(own.scale, other.scale)
    assert is_power_of_two(own.scale)


@settings(max_examples=20, deadline=None)
@given(seeds, st.integers(2, 8), st.floats(0.25, 20, width=32), st.floats(-20, 0, width=32), st.booleans())
def test_activations_from_given_limits(seed: int, bits: int, high: float, low: float, signed: bool) -> None:
    name = "Int8ActPerTensorFixedPointMinMaxInit" if signed else "Uint8ActPerTensorFixedPointMaxInit"
    limits = {"min_val": low, "max_val": high} if signed else {"max_val": high}
    layers = [
        library.QuantIdentity(getattr(presets, name), bit_width=bits, return_quant_tensor=True, **limits)
        for library, presets in ((qnn, q), (bnn, their_fixed_point))
    ]
    for step in range(3):
        compare_step(layers, tensor(seed + step, 4, 300, scale=3), tensor(seed, 4, 300), bits)
