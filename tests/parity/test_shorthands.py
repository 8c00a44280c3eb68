"""What keywords and words mean, held to Brevitas: values, scales and gradients of layers configured by them alone."""

from __future__ import annotations

from typing import Any

import brevitas.inject.enum as their_words
import brevitas.nn as bnn
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import quant_core.inject.enum as our_words
import quant_nn as qnn

Result = tuple[Any, Tensor, dict[str, Tensor]]
seeds = st.integers(0, 10_000)

AFFINE = {"scaling_affine_rescaling_init": 1.25, "scaling_affine_shifting_init": None}
CLAMPING = {**AFFINE, "scaling_affine_rescaling_init": 0.5}

WEIGHTS: list[dict[str, Any]] = [
    {"quant_type": "int"},
    {"quant_type": "binary"},
    {"quant_type": "BINARY", "scaling_impl_type": "const", "scaling_const": 0.1},
    {"quant_type": "ternary", "threshold": 0.4},
    {"bit_width_impl_type": "const", "bit_width": 4},
    {"bit_width_impl_type": "parameter", "bit_width": 4},
    {"scaling_impl_type": "const", "scaling_const": 0.2},
    {"scaling_impl_type": "const", "scaling_init": 0.2},
    {"scaling_impl_type": "he"},
    {"scaling_impl_type": "stats"},
    {"scaling_impl_type": "parameter", "scaling_init": 0.2},
    {"scaling_impl_type": "parameter", "scaling_init": 0.2, "bit_width_impl_type": "parameter"},
    *(
        {"restrict_scaling_type": word, **start}
        for word in ("fp", "log_fp", "power_of_two")
        for start in (
            {},
            {"scaling_per_output_channel": True},
            {"scaling_impl_type": "const", "scaling_const": 0.2},
            {"scaling_impl_type": "parameter", "scaling_init": 0.2},
            {"scaling_impl_type": "parameter_from_stats"},
            {"scaling_impl_type": "parameter_from_stats", "bit_width_impl_type": "parameter"},
        )
    ),
    {"scaling_impl_type": "affine_stats", **AFFINE},
    {"scaling_impl_type": "affine_stats", "scaling_per_output_channel": True, **AFFINE},
    {"scaling_impl_type": "affine_stats", **CLAMPING},
    {"scaling_impl_type": "affine_stats", "scaling_per_output_channel": True, **CLAMPING},
    {"scaling_impl_type": "parameter_from_stats", "scaling_per_output_channel": True},
    {"scaling_impl_type": "parameter", "scaling_init": 0.2, "scaling_per_output_channel": True},
    {"quant_type": "binary", "scaling_impl_type": "parameter", "scaling_init": 0.2, "scaling_per_output_channel": True},
    {"scaling_per_output": "tensor"},
    {"scaling_per_output": "channel"},
    {"scaling_per_output_type": "channel"},
    {"scaling_per_output_channel": True},
    {"scaling_stats_op": "max"},
    {"scaling_stats_op": "max_ave"},
    {"scaling_stats_op": "signed_max"},
    {"scaling_stats_op": "ave", "scaling_per_output_channel": True},
    {"scaling_stats_op": "mean_sigma_std", "sigma": 2.0, "scaling_per_output_channel": True},
    {"scaling_stats_op": "percentile", "high_percentile_q": 90.0},
    {"scaling_stats_op": "min_max", "scaling_per_output_channel": True},
    {"scaling_stats_op": "percentile_interval", "high_percentile_q": 90.0, "low_percentile_q": 5.0},
    *({"float_to_int_impl_type": word} for word in ("round", "ceil", "floor", "round_to_zero", "dpu")),
]

ACTIVATIONS: list[dict[str, Any]] = [
    {"quant_type": "int"},
    {"quant_type": "binary"},
    {"quant_type": "binary", "scaling_impl_type": "const", "max_val": 0.5, "min_val": -0.5},
    {"quant_type": "ternary", "threshold": 0.4},
    {"bit_width_impl_type": "parameter", "bit_width": 4},
    {"scaling_impl_type": "const", "max_val": 1.5, "min_val": -1.0},
    {"scaling_impl_type": "parameter", "max_val": 1.0, "min_val": -1.5},
    {"scaling_impl_type": "parameter", "max_val": 1.0, "min_val": -1.0, "bit_width_impl_type": "parameter"},
    {"scaling_impl_type": "parameter_from_stats"},
    *(
        {"restrict_scaling_type": word, **start}
        for word in ("fp", "log_fp", "power_of_two")
        for start in (
            {},
            {"scaling_impl_type": "const", "max_val": 1.5, "min_val": -1.0},
            {"scaling_impl_type": "parameter", "max_val": 1.5, "min_val": -1.0},
            {"scaling_impl_type": "stats"},
        )
    ),
    {"scaling_impl_type": "stats"},
    {"scaling_impl_type": "stats", "scaling_stats_op": "max"},
    {"scaling_impl_type": "affine_stats", **AFFINE},
    {"scaling_stats_op": "max"},
    {"scaling_stats_op": "ave"},
    {"scaling_stats_op": "mean_sigma_std", "sigma": 2.0},
    {"scaling_stats_op": "min_max"},
    {"scaling_stats_op": "percentile", "high_percentile_q": 95.0},
    {"scaling_stats_op": "percentile_interval", "high_percentile_q": 95.0, "low_percentile_q": 5.0},
    *({"float_to_int_impl_type": word} for word in ("round", "ceil", "floor", "round_to_zero", "dpu")),
]


def tensor(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def largest(x: Tensor) -> float:
    return float(x.detach().abs().max())


def gradients(layer: nn.Module) -> dict[str, Tensor]:
    """What the quantizer learns, by the last part of its name; without gradients that are 0."""
    learned = [(name, p.grad) for name, p in layer.named_parameters() if p.grad is not None and "quant" in name]
    return {name.rpartition(".")[2]: grad.flatten() for name, grad in learned if bool(grad.any())}


def of_weight(library: Any, seed: int, options: dict[str, Any]) -> Result:
    torch.manual_seed(0)
    layer = library.QuantConv2d(3, 4, 3, bias=False, **{f"weight_{key}": option for key, option in options.items()})
    with torch.no_grad():
        layer.weight.copy_(tensor(seed, 4, 3, 3, 3) * 0.1)
    layer.weight_quant.init_tensor_quant()
    out = layer.quant_weight()
    out.value.backward(tensor(seed + 1, 4, 3, 3, 3))
    return out, layer.weight.grad, gradients(layer)


def of_activation(layer: Any, seed: int) -> Result:
    x = tensor(seed, 6, 40).requires_grad_()
    layer.zero_grad()
    out = layer(x)
    out.value.backward(tensor(seed + 1, 6, 40))
    assert x.grad is not None
    return out, x.grad, gradients(layer)


def assert_same(ours: Result, theirs: Result, incoming: Tensor) -> None:
    (found, our_grad, our_learned), (wanted, their_grad, their_learned) = ours, theirs
    assert torch.equal(found.value, wanted.value)
    assert torch.equal(found.scale.flatten(), wanted.scale.flatten())
    assert torch.equal(found.zero_point.flatten(), wanted.zero_point.flatten())
    assert found.bit_width.item() == wanted.bit_width.item()
    assert largest(our_grad - their_grad) <= 1e-3 * largest(their_grad)
    assert our_learned.keys() == their_learned.keys()
    # The residual of each element, counted in steps, is kept in float16: half a unit in the last of 11 bits of at most 1. A
    # step is worth the scale to the bit width, and one part of the largest integer to the threshold.
    step = max(largest(wanted.scale), 2.0 ** (1 - wanted.bit_width.item()))
    for name in our_learned:
        assert largest(our_learned[name] - their_learned[name]) <= float(incoming.abs().sum()) * 2**-12 * step


@pytest.mark.parametrize("options", WEIGHTS, ids=str)
@settings(max_examples=5, deadline=None)
@given(seed=seeds)
def test_words_of_weights(options: dict[str, Any], seed: int) -> None:
    assert_same(of_weight(qnn, seed, options), of_weight(bnn, seed, options), tensor(seed + 1, 4, 3, 3, 3))


@pytest.mark.parametrize("options", ACTIVATIONS, ids=str)
@settings(max_examples=5, deadline=None)
@given(seed=seeds)
def test_words_of_activations_while_collecting_and_afterwards(options: dict[str, Any], seed: int) -> None:
    collects = options.get("scaling_impl_type") in (None, "parameter_from_stats")
    given_options = {**({"collect_stats_steps": 2} if collects else {}), **options}
    layers = [library.QuantIdentity(return_quant_tensor=True, **given_options) for library in (qnn, bnn)]
    for step in range(4):
        ours, theirs = (of_activation(layer, seed + step) for layer in layers)
        assert_same(ours, theirs, tensor(seed + step + 1, 6, 40))


def test_a_learned_sigma_needs_no_shape_beside_it() -> None:
    options = {"weight_scaling_stats_op": "mean_learn_sigma_std", "weight_sigma": 2.0}
    ours, theirs = qnn.QuantLinear(8, 4, **options), bnn.QuantLinear(8, 4, weight_stats_output_shape=(), **options)
    theirs.load_state_dict({**theirs.state_dict(), "weight": ours.weight, "bias": ours.bias})
    assert torch.equal(ours.quant_weight().value, theirs.quant_weight().value)


def test_groups_of_input_channels() -> None:
    options = {"weight_scaling_per_output": "group", "weight_group_size": 4}
    ours, theirs = (library.QuantLinear(8, 6, bias=False, **options) for library in (qnn, bnn))
    theirs.load_state_dict({"weight": ours.weight})
    assert torch.equal(ours.quant_weight().value.flatten(), theirs.quant_weight().value.flatten())


def test_the_enumerations_of_brevitas_are_taken_as_well() -> None:
    for library, words in ((qnn, their_words), (qnn, our_words), (bnn, their_words)):
        layer = library.QuantLinear(
            4, 4, weight_quant_type=words.QuantType.INT, weight_scaling_per_output=words.ScalingPerOutputType.CHANNEL
        )
        assert layer.quant_weight().scale.shape == (4, 1)


def test_a_limit_alone_is_where_learning_starts_which_brevitas_ignores() -> None:
    """On purpose, see the page on differences."""
    ours, theirs = (library.QuantReLU(max_val=6, return_quant_tensor=True) for library in (qnn, bnn))
    learned = bnn.QuantReLU(max_val=6, scaling_impl_type="parameter", return_quant_tensor=True)
    x = torch.rand(100)
    assert torch.equal(ours(x).value, learned(x).value)
    assert ours(x).scale.item() != theirs(x).scale.item()
