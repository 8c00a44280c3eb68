"""Every line of the table: what it names exists, and quantizers with it build."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

import quant_core.inject.enum as words
import quant_core.quant as q
from quant_core.errors import ConfigurationError, PluginError
from quant_core.plugins import Shorthand, load_attribute, registry
from quant_core.proxies import ActQuantProxyFromInjector, BiasQuantProxyFromInjector, WeightQuantProxyFromInjector
from quant_core.quant import Int8ActPerTensorFloat, Int8Bias, Int8WeightPerTensorFloat
from quant_core.shorthand import SHORTHANDS
from quant_core.tensor import QuantTensor

KINDS = {
    "weight": (Int8WeightPerTensorFloat, WeightQuantProxyFromInjector),
    "activation": (Int8ActPerTensorFloat, ActQuantProxyFromInjector),
    "bias": (Int8Bias, BiasQuantProxyFromInjector),
}
"""A quantizer of each kind, to try words on, and its proxy."""

NEEDED: dict[str, dict[str, Any]] = {
    "quant_type=ternary": {"threshold": 0.5},
    "scaling_impl_type=const": {"scaling_init": 0.5},
    "scaling_impl_type=parameter": {"scaling_init": 0.5},
    "scaling_per_output=group": {"group_size": 3},
    "scaling_per_output_type=group": {"group_size": 3},
    "scaling_const": {"scaling_const": 0.5, "scaling_impl_type": "parameter"},
    "max_val": {"max_val": 6},
    "min_val": {"min_val": -6},
    "scaling_stats_op=mean_sigma_std": {"sigma": 3.0},
    "scaling_stats_op=mean_learn_sigma_std": {"sigma": 3.0},
    "scaling_stats_op=percentile": {"high_percentile_q": 99.0},
    "scaling_stats_op=percentile_interval": {"high_percentile_q": 99.0, "low_percentile_q": 1.0},
}
"""What some words need beside them."""


class Layer(nn.Linear):
    output_channel_dim = 0


def options_for(entry: Shorthand, kind: str) -> dict[str, Any]:
    options = {} if entry.word is None else {entry.keyword: entry.word}
    options |= NEEDED.get(entry.name, {})
    if kind == "activation" and entry.name.startswith("scaling_per_output") and entry.word == "channel":
        options["per_channel_broadcastable_shape"] = (1, 6)
    if kind == "activation" and entry.name == "scaling_stats_op=max_ave":
        options["output_channel_dim"] = 1
    return options


def cases() -> Iterator[Any]:
    from_outside = {"scaling_stats_impl", "scaling_per_output_channel"}  # the scale of a bias of this kind
    for entry in SHORTHANDS:
        for kind in KINDS:
            settings = entry.settings(kind)
            if settings and not (kind == "bias" and settings.keys() <= from_outside):
                yield pytest.param(entry, kind, id=f"{entry.name} {kind}")


@pytest.mark.parametrize("entry", SHORTHANDS, ids=lambda entry: entry.name)
def test_what_a_shorthand_names_exists(entry: Shorthand) -> None:
    settings = {**entry.weight, **entry.activation, **entry.bias, **entry.sets, **entry.along}
    for item in settings.values():
        if isinstance(item, str) and ":" in item:
            assert load_attribute(item) is not None
    assert registry().shorthands[entry.name].distribution == "quant-core"


@pytest.mark.parametrize(("entry", "kind"), list(cases()))
def test_a_quantizer_with_each_shorthand_builds_and_computes(entry: Shorthand, kind: str) -> None:
    torch.manual_seed(0)
    quantizer, proxy_class = KINDS[kind]
    layer = Layer(6, 4)
    proxy = proxy_class(layer, quantizer.let(**options_for(entry, kind)))
    arguments = {"weight": (layer.weight,), "activation": (torch.randn(5, 6),), "bias": (layer.bias, torch.tensor(0.1))}
    found = proxy(*arguments[kind])
    if entry.name == "quant_type=fp":
        assert found is arguments[kind][0]
        return
    assert isinstance(found, QuantTensor)
    assert found.is_valid
    assert bool(torch.isfinite(found.value).all())


@pytest.mark.parametrize(
    ("base", "options", "name", "wanted"),
    [
        (q.Int8WeightPerTensorFloat, {"restrict_scaling_type": "power_of_two"}, "restrict_rounding_mode", "ROUND"),
        (q.Int8WeightPerTensorFixedPoint, {"restrict_scaling_type": "power_of_two"}, "restrict_rounding_mode", "CEIL"),
        (q.Int8WeightPerTensorFloat, {"scaling_impl_type": "affine_stats"}, "scaling_affine_rescaling_init", 1.0),
        (
            q.Int8WeightPerTensorFloat.let(scaling_affine_rescaling_init=1.5),
            {"scaling_impl_type": "affine_stats"},
            "scaling_affine_rescaling_init",
            1.5,
        ),
        (
            q.Int8ActPerTensorFloatBatchQuant2d,
            {"scaling_impl_type": "affine_stats"},
            "scaling_affine_rescaling_init",
            1.0,
        ),
    ],
)
def test_what_goes_along_leaves_an_inherited_choice_alone(base: Any, options: Any, name: str, wanted: object) -> None:
    assert getattr(base.let(**options), name) == wanted


class Transposed(Layer):
    output_channel_dim = 1


@pytest.mark.parametrize(
    "quantizer",
    [
        q.Int8WeightPerTensorFloat.let(scaling_stats_op="max_ave", narrow_range=False),
        q.Fp8e4m3WeightPerTensorFloat.let(scaling_stats_op="max_ave"),
        q.SignedBinaryWeightPerTensorConst.let(scaling_impl_type="stats", scaling_stats_op="max_ave"),
    ],
)
def test_channels_of_a_weight_are_the_output_channels_of_its_layer(quantizer: Any) -> None:
    layer = Transposed(6, 4)
    assert quantizer.let(module=layer).scaling_impl(layer.weight) == layer.weight.abs().amax(0).mean()


def test_the_deviation_of_weights_is_that_of_their_initialisation() -> None:
    for layer in (nn.Conv2d(64, 32, 3, groups=2), nn.ConvTranspose2d(64, 32, 3), nn.Linear(1000, 30)):
        drawn = nn.init.kaiming_normal_(layer.weight.detach().clone(), generator=torch.Generator().manual_seed(0))
        scaling = q.Int8WeightPerTensorFloat.let(scaling_impl_type="he", module=layer).scaling_impl
        assert scaling.value.item() == pytest.approx(drawn.std().item(), rel=0.02)


ENUMERATIONS = {
    "quant_type": words.QuantType,
    "bit_width_impl_type": words.BitWidthImplType,
    "scaling_impl_type": words.ScalingImplType,
    "restrict_scaling_type": words.RestrictValueType,
    "scaling_per_output": words.ScalingPerOutputType,
    "scaling_per_output_type": words.ScalingPerOutputType,
    "scaling_stats_op": words.StatsOp,
    "float_to_int_impl_type": words.FloatToIntImplType,
}


def test_enumerations_hold_the_words_of_the_table() -> None:
    in_table: dict[str, set[str]] = {}
    for entry in SHORTHANDS:
        if entry.word is not None:
            in_table.setdefault(entry.keyword, set()).add(entry.word)
    assert in_table == {
        keyword: {member.value.lower() for member in enumeration} for keyword, enumeration in ENUMERATIONS.items()
    }


@pytest.mark.parametrize(
    ("limits", "threshold"), [({"max_val": 6}, 6), ({"min_val": -6}, 6), ({"max_val": 2.0, "min_val": -3}, 3)]
)
def test_limits_are_the_threshold_from_which_learning_starts(limits: dict[str, float], threshold: float) -> None:
    proxy = ActQuantProxyFromInjector(nn.Identity(), Int8ActPerTensorFloat.let(**limits))
    assert proxy.scale().item() == pytest.approx(threshold / 128)
    assert [parameter.item() for parameter in proxy.parameters()] == [threshold]


def test_limits_can_be_the_threshold_of_a_fixed_scale() -> None:
    proxy = ActQuantProxyFromInjector(nn.Identity(), Int8ActPerTensorFloat.let(max_val=6, scaling_impl_type="const"))
    assert proxy.scale().item() == pytest.approx(6 / 128)
    assert list(proxy.parameters()) == []


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (
            {"max_val": "6"},
            "max_val='6' is not a number\n"
            "  at Identity: scaling_init of Int8ActPerTensorFloat\n"
            "  it is the limit of the values to quantize, from which the scale starts\n"
            "  Write, for example, max_val=6.0.",
        ),
        (
            {"max_val": -3, "min_val": 6},
            "min_val=6 does not lie below max_val=-3\n"
            "  at Identity: scaling_init of Int8ActPerTensorFloat\n"
            "  they are the lower and the upper limit of the values to quantize\n"
            "  Swap them, or leave min_val out.",
        ),
    ],
)
def test_limits_are_numbers_in_order(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ActQuantProxyFromInjector(nn.Identity(), Int8ActPerTensorFloat.let(**limits))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"name": "Quant_Type=int", "sets": {"tensor_quant": None}},
            "Shorthand has the name 'Quant_Type=int'\n"
            "  a name is a keyword, or a keyword and a word, in lower case\n"
            "  Write, for example, 'quant_type=binary'.",
        ),
        (
            {"name": "quant_type=mine"},
            "Shorthand 'quant_type=mine' stands for nothing\n"
            "  it sets no attribute in quantizers of any kind\n"
            "  Fill sets, or weight, activation or bias.",
        ),
        (
            {"name": "quant_type=mine", "weight": {"tensor_quant": "my_package/quant:Mine"}},
            "Shorthand 'quant_type=mine' sets tensor_quant='my_package/quant:Mine'\n"
            "  code is named as 'package.module:attribute', so that it is imported on first use only\n"
            "  Write the reference as a string of that form.",
        ),
    ],
)
def test_a_line_that_cannot_be_right_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(PluginError) as caught:
        Shorthand(summary="", **fields)
    assert str(caught.value) == message
