"""Laws of rules: which layers they are for, and which of several wins."""

from __future__ import annotations

import copy
import importlib
import pickle
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import quant_nn as qnn
from quant_core.errors import ConfigurationError
from quant_core.plugins import Registry
from quant_core.quant import Int8ActPerTensorFloat, Int8WeightPerChannelFloat
from quant_nn import Rule, quantize


def net() -> nn.Sequential:
    """Blocks of a convolution and a rectifier, and a head."""
    blocks = [nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU()) for _ in range(3)]
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(2, 2))


def bits(model: nn.Module) -> dict[str, int]:
    """The bit widths of weights by path."""
    found = model.named_modules()
    return {
        path: int(layer.quant_weight().bit_width) for path, layer in found if isinstance(layer, qnn.QuantWeightLayer)
    }


PATHS = ["0.0", "1.0", "2.0", "4"]
selections = st.lists(
    st.tuples(st.sets(st.sampled_from([*PATHS, "0", "1.*", "*"]), min_size=1), st.integers(2, 8)),
    min_size=1,
    max_size=3,
)


@given(selections)
@settings(max_examples=30, deadline=None)
def test_the_last_rule_that_is_for_a_layer_says_its_bits(chosen: list[tuple[set[str], int]]) -> None:
    """The law of the order, against a model of it that is written with prefixes."""
    rules = [
        Rule(types=("Conv2d", "Linear"), names=sorted(names), options={"weight_bit_width": width}, optional=True)
        for names, width in chosen
    ]
    expected = {}
    for names, width in chosen:
        for path in PATHS:
            if {path, path.split(".")[0], "*"} & names or (path == "1.0" and "1.*" in names):
                expected[path] = width
    assert bits(quantize(net(), rules).model) == expected


def test_options_of_several_rules_are_merged() -> None:
    rules = [
        Rule(types="Conv2d", options={"weight_bit_width": 4, "input_quant": Int8ActPerTensorFloat}),
        Rule(names="1", types="Conv2d", options={"weight_bit_width": 2}),
        Rule(names="2", types="Conv2d", options={"input_quant": None}),
    ]
    model = quantize(net(), rules).model
    assert bits(model) == {"0.0": 4, "1.0": 2, "2.0": 4}
    assert [model[i][0].input_quant is not None for i in range(3)] == [True, True, False]


def test_a_quantizer_that_is_switched_off_takes_its_options_along() -> None:
    rules = [
        Rule(types="Conv2d", options={"weight_bit_width": 4, "weight_narrow_range": False}),
        Rule(types="ReLU", options={"bit_width": 3, "return_quant_tensor": True}),
        Rule(names="1", types="Conv2d", options={"weight_quant": None}),
        Rule(names="1", types="ReLU", options={"act_quant": None, "return_quant_tensor": False}),
    ]
    conversion = quantize(net(), rules)
    model = conversion.model
    assert conversion.replaced[2].options == {"weight_quant": None}
    assert bits(nn.Sequential(model[0], model[2])) == {"0.0": 4, "1.0": 4}
    assert model[1][0].weight_quant is None
    assert [block[1].act_quant is None for block in model[:3]] == [False, True, False]


def test_a_later_rule_takes_an_excluded_layer_back() -> None:
    rules = [
        Rule(types="Conv2d", options={"weight_bit_width": 4}),
        Rule(names="?.0", exclude=True),
        Rule(names="2.0"),
    ]
    assert bits(quantize(net(), rules).model) == {"2.0": 4}


@pytest.mark.parametrize(("place", "path"), [("first", "0.0"), ("last", "4")])
def test_the_first_and_the_last_layer(place: Any, path: str) -> None:
    everywhere = Rule(types=("Conv2d", "Linear"), options={"weight_bit_width": 2})
    ends = Rule(types=("Conv2d", "Linear"), place=place, options={"weight_bit_width": 8})
    found = bits(quantize(net(), [everywhere, ends]).model)
    assert [layer for layer, width in found.items() if width == 8] == [path]


def test_a_path_may_be_any_of_those_of_a_shared_layer() -> None:
    shared = nn.Linear(2, 2)
    model = nn.ModuleDict({"one": shared, "two": shared})
    quantize(model, Rule(names="two"))
    assert isinstance(model["one"], qnn.QuantLinear)
    assert model["one"] is model["two"]


def test_code_is_named_so_that_rules_can_be_compared() -> None:
    one = Rule(types=nn.Conv2d, options={"weight_quant": Int8WeightPerChannelFloat})
    other = Rule(types=["torch.nn.Conv2d"], options={"weight_quant": "Int8WeightPerChannelFloat"})
    assert one == other
    assert hash(one) == hash(other)
    assert one != Rule(types=nn.Conv2d)
    assert pickle.loads(pickle.dumps(one)) == copy.deepcopy(one) == one


def test_a_quantizer_without_a_name_is_kept_as_it_is() -> None:
    ternary = Int8WeightPerChannelFloat.let(bit_width=2)
    model = quantize(nn.Linear(3, 2), Rule(types="Linear", options={"weight_quant": ternary})).model
    assert bits(model) == {"": 2}


class Doubled(nn.Module):
    """A float layer of a plugin."""

    def __init__(self, factor: float = 2.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * x


class QuantDoubled(qnn.QuantIdentity):
    """What the plugin has for it."""

    def __init__(self, factor: float, **options: Any) -> None:
        super().__init__(**options)
        self.factor = factor

    def forward(self, input: Any) -> Any:
        return super().forward(self.factor * input)


class Halved(nn.Linear):
    """A subclass, which computes something else."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input) / 2


def test_a_layer_is_named_by_reference() -> None:
    rule = Rule(types=Doubled, layer=QuantDoubled, options={"bit_width": 4})
    assert rule.layer is QuantDoubled  # this module has no name that could be imported
    assert Rule(types="Linear", layer=qnn.QuantLinear).layer == "quant_nn.linear:QuantLinear"
    model = quantize(nn.Sequential(Doubled(3.0)), rule).model
    assert model[0].factor == 3.0
    rule = Rule(types="Halved", layer="QuantLinear")
    assert isinstance(quantize(Halved(2, 2), rule).model, qnn.QuantLinear)


def test_a_subclass_is_left_and_the_reason_given() -> None:
    model = nn.Sequential(Halved(2, 2), nn.Linear(2, 2))
    conversion = quantize(model, Rule(names="*"))
    assert [one.reason for one in conversion.left] == [
        "it may compute something else than torch.nn.Linear, from which it is derived"
    ]


def test_layers_of_plugins_take_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin registers a layer for a float type of its own, and another one for a type of torch."""
    (tmp_path / "acme_layers.py").write_text(ACME)
    monkeypatch.syspath_prepend(tmp_path)
    acme = importlib.import_module("acme_layers")
    plugins = Registry([*entry_points(group="quant"), EntryPoint("acme", "acme_layers", "quant")])
    model = nn.Sequential(acme.Mish(), nn.Tanh())
    conversion = quantize(model, Rule(types="Mish", options={"bit_width": 4}), plugins=plugins)
    assert [one.quant_type for one in conversion.replaced] == ["acme_layers.QuantMish"]
    assert model(torch.randn(2, 3)).shape == (2, 3)
    assert Rule(types="Mish", layer=acme.QuantMish).layer == "acme_layers:QuantMish"
    with pytest.raises(ConfigurationError) as caught:
        quantize(nn.Sequential(nn.Tanh()), Rule(types="Tanh"), plugins=plugins)
    assert str(caught.value).splitlines() == [
        "several quantized layers are registered for torch.nn.Tanh",
        "  at 0, by rule 1",
        "  OtherTanh, QuantTanh",
        "  Choose one with layer='OtherTanh' in the rule.",
    ]
    chosen = quantize(nn.Sequential(nn.Tanh()), Rule(types="Tanh", layer="QuantTanh"), plugins=plugins)
    assert isinstance(chosen.model[0], qnn.QuantTanh)  # type: ignore[index]


ACME = """
from torch import nn
import quant_nn as qnn
from quant_core.plugins import Layer, hookimpl
QUANT_API_VERSION = 1
class Mish(nn.Mish):
    pass
class QuantMish(qnn.QuantIdentity):
    act_impl = nn.Mish
@hookimpl
def quant_layers():
    yield Layer(name="QuantMish", summary="", float_type="acme_layers:Mish", quant_type="acme_layers:QuantMish")
    yield Layer(name="OtherTanh", summary="", float_type="torch.nn:Tanh", quant_type="quant_nn:QuantTanh")
    yield Layer(name="Absent", summary="", float_type="not_installed:Layer", quant_type="quant_nn:QuantTanh")
"""
