"""The text of every error of a conversion."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import quant_nn as qnn
from quant_core.errors import ConfigurationError, InputError, QuantError, UnknownNameError, UnusedAttributeError
from quant_nn import Rule, quantize

W4 = Rule(types="Linear", options={"weight_bit_width": 4})


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm3d(4), nn.ReLU())
        self.head = nn.Linear(4, 2)


def refused(kind: type[QuantError], model: Any, rules: Any, **options: Any) -> list[str]:
    with pytest.raises(kind) as caught:
        quantize(model, rules, **options)
    return [line.strip() for line in str(caught.value).splitlines()]


def test_no_model() -> None:
    assert refused(InputError, nn.Linear, W4) == [
        "'type' object is not a model",
        "quantize takes an instance of torch.nn.Module",
        "Pass the module itself; call a class to make an instance.",
    ]


def test_no_rules() -> None:
    assert refused(ConfigurationError, Net(), "w8a8") == [
        "'w8a8' is no list of rules",
        "rules are instances of quant_nn.Rule",
        "Use quant_nn.recipe(name) for a recipe, and quant_nn.read_rules(path) for a file.",
    ]
    fix = "Write, for example, Rule(types='Linear', options={'weight_bit_width': 4})."
    why = "rules are instances of quant_nn.Rule, and what no rule is for stays as it is"
    assert refused(ConfigurationError, Net(), []) == ["there is no rule", why, fix]
    assert refused(ConfigurationError, Net(), [{"types": "Linear"}]) == ["{'types': 'Linear'} is no rule", why, fix]


def test_a_quantized_model() -> None:
    assert refused(ConfigurationError, nn.Sequential(nn.Linear(2, 2), qnn.QuantLinear(2, 2)), W4) == [
        "the model is quantized already",
        "at 1.weight_quant",
        "it has 1 quantizer: 1.weight_quant",
        "Convert the float model; to quantize it in another way, build it again and load its float checkpoint.",
    ]


def test_the_meta_device() -> None:
    with torch.device("meta"):
        net = Net()
    assert refused(ConfigurationError, net, W4) == [
        "9 tensors of the model are on the meta device",
        "at features.0",
        "scales start from the values of weights, and there are none: features.0.weight, features.0.bias, features.1.weight, "
        "features.1.bias and 5 more",
        "Call model.to_empty(device='cpu') and load a checkpoint, or build the model on a device.",
    ]


@pytest.mark.filterwarnings("ignore:Lazy modules:UserWarning")
def test_lazy_layers() -> None:
    assert refused(ConfigurationError, nn.Sequential(nn.LazyLinear(2)), W4) == [
        "2 parameters of the model have no shape yet",
        "at 0",
        "lazy layers get theirs from the first input: 0.weight, 0.bias",
        "Call the model once before it is converted.",
    ]


def test_a_rule_for_no_path() -> None:
    assert refused(UnknownNameError, Net(), [W4, Rule(names="feature.0")]) == [
        "1 rule is for no layer of the model",
        "at rule 2",
        "rule 2: no module has a path like 'feature.0'",
        "Did you mean 'features.0' or 'features.2' or 'features.1'?",
    ]


def test_a_rule_for_no_type() -> None:
    assert refused(UnknownNameError, Net(), [Rule(types="Conv1d")]) == [
        "1 rule is for no layer of the model",
        "at rule 1",
        "rule 1: no layer has the type Conv1d",
        "Did you mean 'Conv2d'?",
    ]
    assert refused(UnknownNameError, Net(), [Rule(types="Embedding"), Rule(names="qqq", exclude=True)])[2:] == [
        "rule 1: no layer has the type Embedding",
        "rule 2: no module has a path like 'qqq'",
        "The model has layers of the types Conv2d, Linear, ReLU. Set optional for a rule that may be for none.",
    ]


def test_a_rule_whose_names_and_types_do_not_meet() -> None:
    assert refused(UnknownNameError, Net(), [Rule(types="Linear", names="features")])[2] == (
        "rule 1: names are for features.0 (torch.nn.Conv2d), features.1 (torch.nn.BatchNorm3d), features.2 (torch.nn.ReLU); "
        "types are for head; no layer is both"
    )


def test_a_rule_for_layers_that_nothing_stands_for() -> None:
    lines = refused(UnknownNameError, Net(), [Rule(types="BatchNorm3d", options={"weight_bit_width": 4})])
    assert lines[2] == "rule 1: nothing is registered for the types of features.1 (torch.nn.BatchNorm3d)"
    assert lines[3].startswith("Quantized layers are registered for Cat, Conv1d, ")


def test_rules_that_contradict_each_other() -> None:
    fix = "Remove one of them, or say with names or types which layers the later one is for."
    why = "the later one overrides the earlier one on each layer that it is for: head"
    other = Rule(names="head", options={"weight_bit_width": 2})
    assert refused(ConfigurationError, Net(), [W4, other]) == [
        "two rules contradict each other: weight_bit_width=4 and weight_bit_width=2",
        "at rule 1 and rule 2",
        why,
        fix,
    ]
    assert refused(ConfigurationError, Net(), [W4, Rule(names="head", exclude=True)])[:2] == [
        "two rules contradict each other: one replaces what the other excludes",
        "at rule 1 and rule 2",
    ]
    assert refused(ConfigurationError, Net(), [Rule(names="head", exclude=True), W4])[:2] == [
        "two rules contradict each other: one excludes what the other replaces",
        "at rule 1 and rule 2",
    ]
    assert refused(ConfigurationError, Net(), [W4, Rule(names="head", options={"weight_quant": None})])[:2] == [
        "two rules contradict each other: weight_bit_width=4 and a quantizer that is switched off",
        "at rule 1 and rule 2",
    ]
    layers = [Rule(types="Linear", layer="QuantLinear"), Rule(names="head", layer="QuantConv2d")]
    assert refused(ConfigurationError, Net(), layers)[0] == (
        "two rules contradict each other: layer='QuantLinear' and layer='QuantConv2d'"
    )


def test_an_option_that_nothing_reads() -> None:
    assert refused(UnusedAttributeError, Net(), [Rule(types="Linear", options={"weight_bit_widht": 4})]) == [
        "unknown option 'weight_bit_widht'",
        "at head, by rule 1: QuantLinear",
        "nothing in Int8WeightPerTensorFloat reads 'weight_bit_widht'",
        "Did you mean 'weight_bit_width'?",
    ]


def test_an_unknown_quantizer_and_an_unknown_layer() -> None:
    assert refused(
        UnknownNameError, Net(), [Rule(types="Linear", options={"weight_quant": "Int8WeightPerChanelFloat"})]
    ) == [
        "unknown quantizer 'Int8WeightPerChanelFloat'",
        "at head, by rule 1",
        "weight_quant is the name of a registered quantizer, 'package.module:attribute', or 'none'",
        "Did you mean 'Int8WeightPerChannelFloat' or 'Int8WeightPerChannelFloatMSE' or 'Int8WeightPerChannelFloatHQO'?",
    ]
    assert refused(UnknownNameError, Net(), [Rule(types="Linear", layer="QuantLinaer")]) == [
        "unknown layer 'QuantLinaer'",
        "at head, by rule 1",
        "layer is the name of a registered quantized layer, or 'package.module:Class'",
        "Did you mean 'QuantLinear' or 'QuantCat' or 'QuantTanh'?",
    ]


def test_a_forward_of_its_own() -> None:
    net = Net()
    net.head.forward = lambda x: x  # type: ignore[method-assign]
    assert refused(ConfigurationError, net, W4) == [
        "a layer has a forward of its own",
        "at head",
        "an attribute 'forward' was set on this torch.nn.Linear, which a quantized layer would not call",
        "Exclude this layer with a rule, or remove the attribute.",
    ]


def test_a_layer_in_a_plain_list() -> None:
    net = nn.Sequential(nn.Linear(2, 2))
    net.stages = [net[0]]  # type: ignore[assignment]  # a plain list
    assert refused(ConfigurationError, net, W4) == [
        "0 cannot be replaced everywhere",
        "at torch.nn.Sequential",
        "'stages' is a plain list that holds it as well",
        "Use nn.ModuleList or nn.ModuleDict, or exclude this layer.",
    ]


@pytest.mark.parametrize(
    ("hold", "kind"),
    [
        (lambda layer: {"a": [(layer,)]}, "dict"),
        (lambda layer: {layer}, "set"),
        (lambda layer: layer, "attribute"),
        (lambda layer: partial(torch.nn.Module.__call__, layer), "partial"),
        (lambda layer: layer.forward, "method"),
    ],
)
@pytest.mark.parametrize("name", ["stages", "_private"])
def test_a_layer_that_is_held_in_another_way(hold: Any, kind: str, name: str) -> None:
    net = nn.Sequential(nn.Linear(2, 2))
    net.__dict__[name] = hold(net[0])
    assert refused(ConfigurationError, net, W4)[2] == f"{name!r} is a plain {kind} that holds it as well"


def test_what_a_layer_needs_and_cannot_tell() -> None:
    model = nn.Sequential(nn.ReLU())
    assert refused(ConfigurationError, model, Rule(types="ReLU", layer="QuantLinear")) == [
        "nothing tells the argument 'in_features' of QuantLinear",
        "at 0, by rule 1",
        "ReLU has no attribute of this name",
        "Set it in the options of the rule, or give QuantLinear a static method float_arguments(layer).",
    ]
    model = nn.Sequential(nn.Softplus(beta=2.0))
    assert refused(ConfigurationError, model, Rule(types="Softplus", layer="QuantReLU")) == [
        "QuantReLU cannot compute what this layer computes",
        "at 0, by rule 1",
        "Softplus has beta=2.0, and QuantReLU has no such argument",
        "Exclude this layer with a rule.",
    ]


def test_options_that_the_float_layer_tells() -> None:
    rule = Rule(types="Linear", options={"in_features": 5})
    assert refused(ConfigurationError, nn.Sequential(nn.Linear(4, 2)), rule) == [
        "QuantLinear has another shape than this layer",
        "at 0, by rule 1",
        "weight is (2, 4) here, and with the options of the rule it would be (2, 5)",
        "Leave options out that the float layer tells, such as its sizes.",
    ]


@pytest.mark.parametrize(
    ("name", "value"), [("bias", True), ("bias", False), ("device", "cuda:9"), ("dtype", torch.float64)]
)
def test_what_a_quantized_layer_has_from_the_float_one(name: str, value: Any) -> None:
    for layer in (nn.Linear(2, 2), nn.Linear(2, 2, bias=False)):
        rule = Rule(types="Linear", options={name: value})
        assert refused(ConfigurationError, nn.Sequential(layer), rule) == [
            f"{name}={value!r} is no option of a rule",
            "at 0, by rule 1",
            f"a quantized layer has the {name} of the float layer",
            f"Leave {name} out, or change the float layer first.",
        ]


@pytest.mark.parametrize("layer", ["builtins:int", int, "torch.nn.functional:relu"])
def test_what_is_no_layer(layer: Any) -> None:
    lines = refused(ConfigurationError, nn.Sequential(nn.Linear(2, 2)), Rule(types="Linear", layer=layer))
    assert lines[0].endswith("is no layer")
    assert lines[1] == "at 0, by rule 1"


@pytest.mark.parametrize(
    ("given", "what", "why"),
    [
        ({}, "a rule does not say what it is for", "it has neither types nor names"),
        (
            {"names": "*", "exclude": True, "options": {"bit_width": 4}},
            "a rule excludes layers and says what becomes of them",
            "exclude is set, and so is options",
        ),
        ({"names": ""}, "names of a rule is ''", "it is a name, which is not empty"),
        ({"names": 3}, "names of a rule is 3", "it is a name, or a list of names"),
        ({"types": [3]}, "types of a rule is 3", "it is a name, which is not empty"),
        ({"names": "*", "exclude": "yes"}, "exclude of a rule is 'yes'", "it is true or false"),
        ({"names": "*", "place": "frist"}, "place of a rule is 'frist'", "it is 'first' or 'last'"),
        ({"names": "*", "layer": 3}, "layer of a rule is 3", "it is the name of a quantized layer"),
        ({"names": "*", "options": 3}, "options of a rule is 3", "it is a mapping from names to values"),
    ],
)
def test_a_rule_that_cannot_be(given: dict[str, Any], what: str, why: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Rule(**given)
    assert (caught.value.what, caught.value.why) == (what, why)


def test_a_batch_norm_without_statistics() -> None:
    net = nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False))
    assert refused(
        ConfigurationError, net, Rule(types="BatchNorm1d", layer="quant_nn:BatchNorm1dToQuantScaleBias")
    ) == [
        "a batch normalization without running statistics has no factor and offset",
        "at 0, by rule 1",
        "track_running_stats=False: it normalizes by the statistics of each batch",
        "Exclude this layer with a rule, or train it with track_running_stats=True.",
    ]


def test_a_layer_whose_parameters_are_computed_by_hooks() -> None:
    net = nn.Sequential(prune.l1_unstructured(nn.Linear(2, 2), "weight", 0.5))
    lines = refused(ConfigurationError, net, W4)
    assert lines[:2] == ["QuantLinear has other parameters than this layer", "at 0, by rule 1"]
    assert 'Missing key(s) in state_dict: "weight"' in lines[2]
    assert lines[3] == (
        "Remove what computes its parameters, such as torch.nn.utils.prune, or exclude this layer with a rule."
    )
    assert isinstance(net[0], nn.Linear)
