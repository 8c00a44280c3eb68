"""Scales, restricted and learned in every way, against Brevitas's, as black boxes: thresholds and gradients, step by step."""

from typing import Any

import brevitas.core.restrict_val as their_restrictions
import brevitas.core.scaling as theirs
import brevitas.nn as bnn
import brevitas.quant as bq
import pytest
import torch
from brevitas.core.function_wrapper import (
    CeilSte,
    FloorSte,
    OverOutputChannelView,
    OverTensorView,
    RoundSte,
)
from brevitas.core.stats import AbsMax as TheirAbsMax
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import quant_core.components as ours
import quant_core.quant as q
import quant_nn as qnn

seeds = st.integers(0, 10_000)
ROUNDINGS = {"CEIL": CeilSte, "FLOOR": FloorSte, "ROUND": RoundSte}
RESTRICTIONS = {
    "float": (ours.FloatRestriction, their_restrictions.FloatRestrictValue),
    "log": (ours.LogFloatRestriction, their_restrictions.LogFloatRestrictValue),
    **{
        f"{name} {mode}": (
            lambda kind=kind, mode=mode: kind(mode),
            lambda other=other, ste=ste: other(ste()),
        )
        for name, kind, other in (
            ("power", ours.PowerOfTwoRestriction, their_restrictions.PowerOfTwoRestrictValue),
            ("int", ours.IntRestriction, their_restrictions.IntRestrictValue),
        )
        for mode, ste in ROUNDINGS.items()
    },
}
restrictions = st.sampled_from(sorted(RESTRICTIONS))


def tensor(seed: int, *shape: int, scale: float = 1.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def both(restriction: str) -> tuple[Any, Any]:
    return tuple(build() for build in RESTRICTIONS[restriction])


def gradient(x: Tensor) -> Tensor:
    return torch.zeros_like(x) if x.grad is None else x.grad


def learned(scaling: nn.Module) -> Tensor:
    """The gradient of the one parameter of either."""
    (parameter,) = scaling.parameters()
    return gradient(parameter).flatten()


def compare_step(pair: tuple[Any, Any], x: Tensor, *, parameter: bool) -> None:
    """Equal to the bit, but for the gradient of a logarithm, which has the order of its factors for a last bit."""
    found = []
    for scaling in pair:
        leaf = x.clone().requires_grad_()
        scaling.zero_grad()
        threshold = scaling(leaf)
        threshold.backward(torch.arange(1.0, threshold.numel() + 1).reshape(threshold.shape))
        found.append((threshold.flatten(), gradient(leaf), learned(scaling) if parameter else torch.zeros(1)))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=0, atol=0)
    for own, other in zip(found[0][1:], found[1][1:], strict=True):
        torch.testing.assert_close(own, other, rtol=1e-6, atol=1e-7)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.0078125, 100, width=32), restrictions, st.floats(-5, 5, width=32).filter(lambda v: abs(v) > 1e-3))
def test_a_learned_threshold(start: float, restriction: str, later: float) -> None:
    """From its start on, and for values that training may reach; whole numbers below 1 are 1 here."""
    own, other = both(restriction)
    pair = (
        ours.ParameterScaling(start, restrict_scaling_impl=own),
        theirs.ParameterScaling(start, restrict_scaling_impl=other),
    )
    if restriction.startswith("int"):
        start, later = max(start, 1.0), max(abs(later), 1.0)
        for scaling in pair:
            with torch.no_grad():
                scaling.value.fill_(start)
    assert torch.equal(pair[0].value.flatten(), pair[1].value.flatten())
    compare_step(pair, torch.ones(3), parameter=True)
    for scaling in pair:
        with torch.no_grad():
            scaling.value.fill_(later)
    compare_step(pair, torch.ones(3), parameter=True)


@settings(max_examples=40, deadline=None)
@given(st.floats(1, 100, width=32), restrictions)
def test_a_constant_threshold(start: float, restriction: str) -> None:
    own, other = both(restriction)
    x = torch.ones(3)
    mine = ours.ConstScaling(start, restrict_scaling_impl=own)(x)
    assert mine.item() == theirs.ConstScaling(start, restrict_scaling_impl=other)(x).item()


def stats_pair(name: str, layer: nn.Linear, restriction: str, channels: bool, **options: Any) -> tuple[Any, Any]:
    own, other = both(restriction)
    size = layer.weight.shape[0]
    view = OverOutputChannelView((0, 1)) if channels else OverTensorView()
    granularity = ours.PerChannel(0) if channels else ours.PerTensor()
    return (
        getattr(ours, name)(ours.AbsMax(granularity), layer, restrict_scaling_impl=own, **options),
        getattr(theirs, name)(
            TheirAbsMax(1 if channels else None, **({"keepdim": True} if channels else {})),
            view,
            1 if channels else 0,
            [layer.weight],
            (size, 1) if channels else (),
            restrict_scaling_impl=other,
            **options,
        ),
    )


@settings(max_examples=60, deadline=None)
@given(seeds, restrictions, st.booleans(), st.sampled_from([None, 1e-3, 2.0]), st.sampled_from([0.3, 2.0]))
def test_a_statistic_of_the_weight(
    seed: int, restriction: str, channels: bool, minimum: float | None, spread: float
) -> None:
    layer = nn.Linear(7, 3)
    with torch.no_grad():
        layer.weight.copy_(tensor(seed, 3, 7, scale=spread))
    if restriction.startswith("int") and minimum != 2.0:
        minimum = 1.0  # whole numbers below 1 are 1 here
    found = []
    for scaling in stats_pair("StatsFromParameterScaling", layer, restriction, channels, scaling_min_val=minimum):
        layer.zero_grad()
        threshold = scaling(layer.weight)
        threshold.backward(torch.arange(1.0, threshold.numel() + 1).reshape(threshold.shape))
        found.append((threshold, gradient(layer.weight).clone()))
    own, other = found
    if restriction.endswith(
        "FLOOR"
    ):  # theirs is raised to the minimum again after rounding, here it is rounded as well
        assert torch.equal(own[0].clamp(min=minimum or 0.0), other[0].reshape(own[0].shape))
    else:
        assert torch.equal(own[0], other[0].reshape(own[0].shape))
    torch.testing.assert_close(own[1], other[1], rtol=1e-6, atol=1e-7)


@settings(max_examples=40, deadline=None)
@given(seeds, restrictions, st.booleans())
def test_a_parameter_that_starts_from_a_statistic_of_the_weight(seed: int, restriction: str, channels: bool) -> None:
    layer = nn.Linear(7, 3)
    with torch.no_grad():
        layer.weight.copy_(tensor(seed, 3, 7, scale=2.0).abs() + 1)
    pair = stats_pair("ParameterFromStatsFromParameterScaling", layer, restriction, channels)
    results = []
    for scaling in pair:
        thresholds = []
        for _ in range(3):
            scaling.zero_grad()
            threshold = scaling(layer.weight)
            threshold.square().sum().backward()
            with torch.no_grad():
                scaling.value -= 0.02 * scaling.value.grad
            thresholds.append(threshold.flatten())
        results.append(torch.stack(thresholds))
    torch.testing.assert_close(results[0], results[1], rtol=1e-6, atol=0)
    assert torch.equal(results[0][0], results[1][0])


@settings(max_examples=60, deadline=None)
@given(
    seeds,
    restrictions,
    st.sampled_from([0.1, 0.5, 1.0, None]),
    st.sampled_from([None, 1.0, 3.0]),
    st.integers(1, 4),
    st.booleans(),
)
def test_a_parameter_that_starts_from_the_first_steps(
    seed: int, restriction: str, momentum: float | None, minimum: float | None, steps: int, channels: bool
) -> None:
    own, other = both(restriction)
    if restriction.startswith("int"):
        minimum = max(minimum or 1.0, 1.0)
    shape = (1, 3, 1) if channels else ()
    options = {"scaling_stats_momentum": momentum, "scaling_shape": shape}
    pair = (
        ours.ParameterFromRuntimeStatsScaling(
            ours.AbsMax(ours.PerChannel(1) if channels else ours.PerTensor()),
            steps,
            restrict_scaling_impl=own,
            scaling_min_val=minimum,
            **options,
        ),
        theirs.ParameterFromRuntimeStatsScaling(
            steps,
            TheirAbsMax(1, keepdim=True) if channels else TheirAbsMax(),
            OverOutputChannelView((1, 0, 2)) if channels else OverTensorView(),
            restrict_scaling_impl=other,
            scaling_min_val=minimum,
            **options,
        ),
    )
    # A minimum is rounded like the threshold here, and not there; it shows where the average is close to it.
    rounds_below = restriction.endswith(("FLOOR", "ROUND")) and minimum is not None
    for step in range(steps + 2):
        if step >= steps and rounds_below:
            break
        compare_step(pair, tensor(seed + step, 4, 3, 5, scale=1 + step), parameter=True)
        if step < steps:  # theirs becomes a logarithm when it is complete
            assert torch.equal(pair[0].average.flatten(), pair[1].buffer.flatten())
    if not rounds_below:
        x = tensor(seed, 4, 3, 5)
        mine, reference = (scaling.eval()(x).flatten() for scaling in pair)
        assert torch.equal(mine, reference)


@settings(max_examples=60, deadline=None)
@given(
    seeds,
    restrictions,
    st.sampled_from([0.1, 0.5, None]),
    st.sampled_from([None, 1.0, 2.0]),
    st.sampled_from([None, 1.0, 1.5]),
    st.booleans(),
)
def test_statistics_of_each_batch(
    seed: int,
    restriction: str,
    momentum: float | None,
    minimum: float | None,
    rescaling: float | None,
    channels: bool,
) -> None:
    own, other = both(restriction)
    if restriction.startswith("int"):
        minimum = minimum or 1.0
    shape = (1, 3, 1) if channels else ()
    options = {
        "scaling_stats_momentum": momentum,
        "scaling_shape": shape,
        "scaling_min_val": minimum,
        "scaling_affine_rescaling_init": rescaling,
    }
    pair = (
        ours.RuntimeStatsScaling(
            ours.AbsMax(ours.PerChannel(1) if channels else ours.PerTensor()), restrict_scaling_impl=own, **options
        ),
        theirs.RuntimeStatsScaling(
            TheirAbsMax(1, keepdim=True) if channels else TheirAbsMax(),
            OverOutputChannelView((1, 0, 2)) if channels else OverTensorView(),
            restrict_scaling_impl=other,
            **options,
        ),
    )
    for step in range(4):
        compare_step(pair, tensor(seed + step, 4, 3, 5, scale=1 + step).abs() + 2, parameter=rescaling is not None)
    x = tensor(seed, 4, 3, 5)
    mine, reference = (scaling.eval()(x).flatten() for scaling in pair)
    assert torch.equal(mine, reference)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("bits", [2.0, 3.0, 8.0, 16.0])
def test_what_the_threshold_is_divided_by(bits: float, signed: bool, narrow: bool) -> None:
    width = torch.tensor(bits)
    own, other = ours.IntScaling(signed, narrow)(width), theirs.IntScaling(signed=signed, narrow_range=narrow)(width)
    assert float(own) == float(other)
    assert float(ours.PowerOfTwoIntScaling(signed)(width)) == float(theirs.PowerOfTwoIntScaling(signed=signed)(width))


@settings(max_examples=20, deadline=None)
@given(seeds, st.integers(2, 8), st.sampled_from([1, 2, 4, 8]), st.booleans(), st.booleans())
def test_groups_of_input_channels(seed: int, bits: int, size: int, convolution: bool, powers: bool) -> None:
    """Theirs gives groups an axis of their own; here the weight keeps its shape."""
    name = f"Int8WeightPerTensor{'FixedPoint' if powers else 'Float'}"
    results = []
    for library, presets in ((qnn, q), (bnn, bq)):
        options = {"bias": False, "weight_bit_width": bits, "weight_quant": getattr(presets, name)}
        options["weight_group_size"] = size
        if library is bnn:
            options["weight_scaling_per_output_type"] = "group"
        layer = library.QuantConv2d(8, 3, 2, **options) if convolution else library.QuantLinear(8, 3, **options)
        with torch.no_grad():
            layer.weight.copy_(tensor(seed, *layer.weight.shape))
        layer.weight_quant.init_tensor_quant()
        out = layer.quant_weight()
        out.value.backward(tensor(seed + 1, *layer.weight.shape).reshape(out.value.shape))
        scale = out.scale.expand(out.value.shape).reshape(layer.weight.shape)
        results.append((out.value.reshape(layer.weight.shape), scale, layer.weight.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    torch.testing.assert_close(results[0][2], results[1][2], rtol=1e-3, atol=1e-3)
