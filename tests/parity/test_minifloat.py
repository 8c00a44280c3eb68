"""Our quantizers to minifloats against Brevitas's, as black boxes: values, scales and gradients."""

from typing import Any

import brevitas.nn as bnn
import brevitas.quant.float as plain
import brevitas.quant.float_quant_fnuz as fnuz
import brevitas.quant.float_quant_ocp as ocp
import pytest
import torch
from brevitas.core.function_wrapper import CeilSte, FloorSte, RoundSte
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import quant_core.quant as q
import quant_nn as qnn
from quant_core.ops.minifloat import round_unbounded

ROUNDINGS = {"CEIL": CeilSte, "FLOOR": FloorSte, "ROUND": RoundSte}
FAMILIES = {"": plain, "OCP": ocp, "FNUZ": fnuz}
families = st.sampled_from([(code, family) for code in ("Fp8e4m3", "Fp8e5m2") for family in FAMILIES])
seeds = st.integers(0, 10_000)


def tensor(seed: int, *shape: int, spread: int = 12) -> Tensor:
    """Numbers of many sizes."""
    random = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=random) * torch.exp2(torch.randint(-spread, 2, shape, generator=random).float())


def with_weight(layer: Any, weight: Tensor) -> Any:
    with torch.no_grad():
        layer.weight.copy_(weight)
    layer.weight_quant.init_tensor_quant()
    return layer


def weight_gradients(layer: Any, incoming: Tensor) -> tuple[Any, Tensor]:
    quantized = layer.quant_weight()
    quantized.value.backward(incoming)
    return quantized, layer.weight.grad


def assert_gradients_agree(
    ours: Tensor, theirs: Tensor, x: Tensor, y: Tensor, incoming: Tensor, smallest: Tensor
) -> None:
    """Ours passes as it came; theirs is multiplied by ``y/x`` where the number is a normal one, see docs/differences.md."""
    normal = x.abs() >= smallest
    stretched = torch.where(normal & (x != 0), incoming * y / torch.where(x == 0, 1.0, x), incoming)
    torch.testing.assert_close(ours, incoming, rtol=2e-7, atol=0)
    torch.testing.assert_close(theirs, stretched, rtol=2e-6, atol=1e-7)


@settings(max_examples=60, deadline=None)
@given(families, st.sampled_from(["PerTensorFloat", "PerChannelFloat", ""]), seeds)
def test_weights(chosen: tuple[str, str], granularity: str, seed: int) -> None:
    code, family = chosen
    name = f"{code}{family}Weight{granularity}"
    weight, incoming = tensor(seed, 6, 20), tensor(seed + 1, 6, 20, spread=1)
    if not hasattr(FAMILIES[family], name):
        return
    options = {"bias": False}
    ours = with_weight(qnn.QuantLinear(20, 6, weight_quant=getattr(q, name), **options), weight)
    theirs = with_weight(bnn.QuantLinear(20, 6, weight_quant=getattr(FAMILIES[family], name), **options), weight)
    (found, gradient), (wanted, their_gradient) = weight_gradients(ours, incoming), weight_gradients(theirs, incoming)
    assert torch.equal(found.scale.broadcast_to(weight.shape), wanted.scale.broadcast_to(weight.shape))
    torch.testing.assert_close(found.value, wanted.value, rtol=0, atol=0)
    assert found.float_format.exponent_bias == wanted.exponent_bias
    smallest = found.scale.detach() * found.float_format.smallest_normal
    largest = weight.abs() == (weight.abs().amax(1, keepdim=True) if "Channel" in granularity else weight.abs().amax())
    inner = ~largest if granularity else torch.ones_like(largest)  # the largest ones take the gradient of the scale too
    x, y = weight[inner], found.value.detach()[inner]
    parts = (gradient[inner], their_gradient[inner], x, y, incoming[inner], smallest.expand(weight.shape)[inner])
    assert_gradients_agree(*parts)


@settings(max_examples=40, deadline=None)
@given(families, seeds)
def test_activations_from_the_first_step_to_eval_mode(chosen: tuple[str, str], seed: int) -> None:
    code, family = chosen
    name = f"{code}{family}ActPerTensorFloat"
    options = {"collect_stats_steps": 2, "return_quant_tensor": True}
    ours = qnn.QuantIdentity(act_quant=getattr(q, name), **options)
    theirs = bnn.QuantIdentity(act_quant=getattr(FAMILIES[family], name), **options)
    for step in range(4):
        x = tensor(seed + step, 50)
        found, wanted = ours(x), theirs(x)
        assert torch.equal(found.scale.detach(), wanted.scale.detach())
        assert torch.equal(found.value, wanted.value)
    ours.eval()
    theirs.eval()
    x = torch.cat([tensor(seed + 9, 50), torch.tensor([100.0, -100.0])])
    leaves = [x.clone().requires_grad_() for _ in range(2)]
    found, wanted = ours(leaves[0]), theirs(leaves[1])
    assert torch.equal(found.value, wanted.value)
    found.value.sum().backward()
    wanted.value.sum().backward()
    assert leaves[0].grad is not None
    assert leaves[1].grad is not None
    smallest = (found.scale * found.float_format.smallest_normal).detach()
    clamped = round_unbounded(x / found.scale.detach(), found.float_format).abs() > found.float_format.max_value
    assert torch.equal(leaves[0].grad[clamped], leaves[1].grad[clamped])
    parts = (leaves[0].grad[~clamped], leaves[1].grad[~clamped], x[~clamped], found.value.detach()[~clamped])
    assert_gradients_agree(*parts, torch.ones_like(x[~clamped]), smallest)


@settings(max_examples=30, deadline=None)
@given(families, seeds, st.sampled_from(sorted(ROUNDINGS)))
def test_scales_that_are_powers_of_two(chosen: tuple[str, str], seed: int, mode: str) -> None:
    """Of activations once statistics are collected, see docs/differences.md."""
    code, family = chosen
    found = []
    for library, presets, rounding in (
        (qnn, q, {"restrict_rounding_mode": mode}),
        (bnn, FAMILIES[family], {"restrict_value_float_to_int_impl": ROUNDINGS[mode]}),
    ):
        options = {"restrict_scaling_type": "power_of_two", **rounding}
        kind = getattr(presets, f"{code}{family}WeightPerTensorFloat")
        layer = library.QuantLinear(20, 6, weight_quant=kind, **{f"weight_{name}": o for name, o in options.items()})
        found.append([with_weight(layer, tensor(seed, 6, 20)).quant_weight()])
        kind = getattr(presets, f"{code}{family}ActPerTensorFloat")
        act = library.QuantIdentity(act_quant=kind, collect_stats_steps=2, return_quant_tensor=True, **options)
        found[-1] += [act(tensor(seed + step, 50)) for step in range(4)][2:]
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours.scale, theirs.scale)
        assert torch.equal(ours.value, theirs.value)


@settings(max_examples=30, deadline=None)
@given(families, seeds)
def test_activations_of_scale_one(chosen: tuple[str, str], seed: int) -> None:
    code, family = chosen
    name = f"{code}{family}Act"
    x = torch.cat([tensor(seed, 50) * 1000, torch.tensor([1e6, -1e6, 0.0])])
    found = qnn.QuantIdentity(act_quant=getattr(q, name), return_quant_tensor=True)(x)
    wanted = bnn.QuantIdentity(act_quant=getattr(FAMILIES[family], name), return_quant_tensor=True)(x)
    assert float(found.scale) == float(wanted.scale) == 1.0
    assert torch.equal(found.value, wanted.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_named_quantizer_of_ours_has_its_name_from_there(family: str) -> None:
    names = [name for name in q.__all__ if name.startswith(("Fp8e4m3", "Fp8e5m2")) and _family(name) == family]
    missing = {name for name in names if not hasattr(FAMILIES[family], name)}
    assert missing == set()


def _family(name: str) -> str:
    return next((family for family in ("OCP", "FNUZ") if family in name), "")
