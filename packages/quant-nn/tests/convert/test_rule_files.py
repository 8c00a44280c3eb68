"""Rules in files: the round trip is equal, and an error gives the file, the line and the nearest known word."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from quant_core.components import AbsMax
from quant_core.errors import ConfigurationError, LoadError, QuantError, UnknownNameError, UnusedAttributeError
from quant_core.quant import Int8WeightPerChannelFloat, Int32Bias
from quant_nn import Rule, quantize, read_rules, write_rules

names = st.lists(st.text(min_size=1).filter(str.strip), max_size=2)
scalars = st.one_of(
    st.booleans(),
    st.integers(-(2**31), 2**31),
    st.floats(allow_nan=False),
    st.text().filter(lambda text: ":" not in text),
    st.lists(st.integers(-9, 9) | st.lists(st.integers(-9, 9), max_size=2), max_size=3),
)
options = st.dictionaries(st.text(min_size=1).filter(lambda key: not key.endswith("_quant")), scalars, max_size=3)
quantizers = st.dictionaries(
    st.sampled_from(["weight_quant", "input_quant"]), st.sampled_from([None, Int8WeightPerChannelFloat, "Int8Bias"])
)
rules = st.builds(
    lambda types, patterns, exclude, layer, merged, quants, place, optional: Rule(
        types=types,
        names=patterns or ["*"],
        exclude=exclude,
        layer=None if exclude else layer,
        options={} if exclude else {**merged, **quants},
        place=place,
        optional=optional,
    ),
    names,
    names,
    st.booleans(),
    st.sampled_from([None, "QuantLinear", "quant_nn:QuantLinear"]),
    options,
    quantizers,
    st.sampled_from([None, "first", "last"]),
    st.booleans(),
)


@pytest.mark.parametrize("suffix", [".toml", ".yaml", ".yml"])
@given(several=st.lists(rules, min_size=1, max_size=3))
@settings(max_examples=40, deadline=None)
def test_the_round_trip_is_equal(suffix: str, several: list[Rule], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / f"rules{suffix}"
    write_rules(several, path)
    assert read_rules(path) == tuple(several)


TOML = """
# The whole network in 4 bits, but for its ends.
[[rules]]
types = ["Conv2d", "Linear"]
options.weight_quant = "Int8WeightPerChannelFloat"
options.weight_bit_width = 4
options.bias_quant = "none"
options.weight_scaling_stats_impl = "quant_core.components:AbsMax"

[[rules]]
names = "head"
[rules.options]
weight_bit_width = 8
bias_quant = "Int32Bias"
input_quant = "Int8ActPerTensorFloat"
"""
YAML = """
rules:
- types: [Conv2d, Linear]
  options:
    weight_quant: Int8WeightPerChannelFloat
    weight_bit_width: 4
    bias_quant: none
    weight_scaling_stats_impl: quant_core.components:AbsMax
- names: head
  options: {weight_bit_width: 8, bias_quant: Int32Bias, input_quant: Int8ActPerTensorFloat}
"""
RULES = (
    Rule(
        types=("Conv2d", "Linear"),
        options={
            "weight_quant": Int8WeightPerChannelFloat,
            "weight_bit_width": 4,
            "bias_quant": None,
            "weight_scaling_stats_impl": "quant_core.components:AbsMax",
        },
    ),
    Rule(
        names="head",
        options={"weight_bit_width": 8, "bias_quant": Int32Bias, "input_quant": "Int8ActPerTensorFloat"},
    ),
)


def written(folder: Path, text: str, name: str = "rules.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(("name", "text"), [("rules.toml", TOML), ("rules.yaml", YAML)])
def test_a_file_as_a_person_writes_it(name: str, text: str, tmp_path: Path) -> None:
    found = read_rules(written(tmp_path, text, name))
    assert found == RULES
    model = nn.Sequential()
    model.add_module("stem", nn.Linear(3, 3))
    model.add_module("head", nn.Linear(3, 2))
    conversion = quantize(model, found)
    assert model.head.weight_quant.bit_width() == 8
    assert isinstance(model.stem.weight_quant.tensor_quant.scaling_impl.scaling_stats_impl, AbsMax)
    place = {"rules.toml": ("rules.toml:3", "rules.toml:10"), "rules.yaml": ("rules.yaml:3", "rules.yaml:9")}[name]
    assert conversion.replaced[1].rules == place


def refused(kind: type[QuantError], text: str, folder: Path, name: str = "rules.toml") -> list[str]:
    with pytest.raises(kind) as caught:
        read_rules(written(folder, text, name))
    return [line.strip() for line in str(caught.value).splitlines()]


def test_an_unknown_key(tmp_path: Path) -> None:
    assert refused(
        UnknownNameError, '[[rules]]\nnames = "*"\n\n[[rules]]\n# a remark\ntype = "Linear"\n', tmp_path
    ) == [
        "unknown key 'type'",
        "at rules.toml:6",
        "it is no key of a rule; options of layers stand below options",
        "Did you mean 'types'?",
    ]
    assert refused(UnknownNameError, "rules:\n- names: '*'\n  exlude: true\n", tmp_path, "rules.yml")[1:] == [
        "at rules.yml:3",
        "it is no key of a rule; options of layers stand below options",
        "Did you mean 'exclude'?",
    ]


def test_an_unknown_quantizer(tmp_path: Path) -> None:
    lines = refused(UnknownNameError, '[[rules]]\nnames = "*"\n[rules.options]\nbias_quant = "Int23Bias"\n', tmp_path)
    assert lines == [
        "unknown quantizer 'Int23Bias'",
        "at rules.toml:4",
        "bias_quant is the name of a registered quantizer, 'package.module:attribute', or 'none'",
        "Did you mean 'Int32Bias' or 'Int24Bias' or 'IntBias'?",
    ]


def test_an_unknown_option_is_found_when_the_layer_is_built(tmp_path: Path) -> None:
    rules = read_rules(written(tmp_path, '[[rules]]\ntypes = "Linear"\noptions.weight_bit_widht = 4\n'))
    with pytest.raises(UnusedAttributeError) as caught:
        quantize(nn.Sequential(nn.Linear(2, 2)), rules)
    assert caught.value.where == "0, by rules.toml:3: QuantLinear"
    assert caught.value.fix == "Did you mean 'weight_bit_width'?"


def test_a_wrong_value_is_found_by_its_line(tmp_path: Path) -> None:
    """What is refused is called bit_width there, and weight_bit_width here."""
    text = '[[rules]]\ntypes = "Linear"\noptions.weight_narrow_range = false\noptions.weight_bit_width = 99\n'
    with pytest.raises(ConfigurationError) as caught:
        quantize(nn.Linear(2, 2), read_rules(written(tmp_path, text)))
    assert caught.value.what == "bit_width=99 is not a bit width"
    assert str(caught.value.where).startswith("the model, by rules.toml:4: QuantLinear")


def test_rules_that_contradict_each_other_are_named_by_their_lines(tmp_path: Path) -> None:
    text = '[[rules]]\ntypes = "Linear"\noptions.weight_bit_width = 4\n[[rules]]\nnames = "*"\noptions.weight_bit_width = 2\n'
    with pytest.raises(ConfigurationError) as caught:
        quantize(nn.Linear(2, 2), read_rules(written(tmp_path, text)))
    assert caught.value.where == "rules.toml:3 and rules.toml:4"


def test_values_of_the_wrong_kind(tmp_path: Path) -> None:
    assert refused(ConfigurationError, '[[rules]]\nnames = "*"\nexclude = "yes"\n', tmp_path) == [
        "exclude of a rule is 'yes'",
        "at rules.toml:3",
        "it is true or false",
        "Correct the value.",
    ]
    assert refused(ConfigurationError, "[[rules]]\noptions.bit_width = 4\n", tmp_path)[:2] == [
        "a rule does not say what it is for",
        "at rules.toml:1",
    ]
    assert refused(ConfigurationError, '[[rules]]\nnames = "*"\noptions = 4\n', tmp_path)[:2] == [
        "options of a rule is 4",
        "at rules.toml:3",
    ]


@pytest.mark.parametrize(("name", "text"), [("a.toml", ""), ("a.toml", "rules = 3"), ("a.yaml", ""), ("a.yaml", "- 3")])
def test_no_rules(name: str, text: str, tmp_path: Path) -> None:
    assert refused(ConfigurationError, text, tmp_path, name) == [
        "the file holds no rules",
        f"at {name}:1",
        "'rules' is a list of tables, with at least one",
        "Begin each rule with [[rules]], and write its keys below.",
    ]


def test_something_beside_the_rules(tmp_path: Path) -> None:
    assert refused(UnknownNameError, '[[rules]]\nnames = "*"\n[rule]\nnames = "*"\n', tmp_path)[:3] == [
        "unknown key 'rule'",
        "at rules.toml:1",
        "at the top of a file of rules there is only the list 'rules'",
    ]


def test_files_that_are_not_well_formed(tmp_path: Path) -> None:
    lines = refused(LoadError, '[[rules]]\nnames = "*\n', tmp_path)
    assert lines[:2] == ["the file of rules is not well formed", "at rules.toml:2"]
    assert lines[3] == "Correct this line."
    lines = refused(LoadError, "rules:\n- names: [a\n- b: c\n", tmp_path, "rules.yaml")
    assert lines[:2] == ["the file of rules is not well formed", "at rules.yaml:3"]
    assert refused(ConfigurationError, "rules:\n- names: a\n  names: b\n", tmp_path, "rules.yaml")[:2] == [
        "'names' stands twice",
        "at rules.yaml:3",
    ]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(LoadError) as caught:
        read_rules(tmp_path / "absent.toml")
    assert caught.value.what == "the file of rules cannot be read"
    assert caught.value.why.startswith("FileNotFoundError: ")
    with pytest.raises(LoadError) as caught:
        read_rules(tmp_path / "rules.json")
    assert caught.value.what == "a file of rules does not end in '.json'"
    assert caught.value.why == "its format is told by its name: .toml, .yaml, .yml"


def test_yaml_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert refused(LoadError, YAML, tmp_path, "rules.yaml") == [
        "YAML is not installed",
        "at rules.yaml",
        "rules in YAML need the library PyYAML",
        "Install it: pip install 'quant-nn[yaml]', or write the rules in TOML.",
    ]


@pytest.mark.parametrize("value", [Int32Bias.let(bit_width=9), object])
def test_what_has_no_name_is_not_written(value: Any, tmp_path: Path) -> None:
    rule = Rule(names="*", options={"bias_quant": value if value is not object else object()})
    with pytest.raises(ConfigurationError) as caught:
        write_rules([rule], tmp_path / "rules.toml")
    assert caught.value.what.endswith("cannot be written to a file")
    assert caught.value.where == "rule 1"
    assert not (tmp_path / "rules.toml").exists()


@pytest.mark.parametrize("suffix", ["toml", "yaml"])
def test_only_quantizers_are_none_in_files(suffix: str, tmp_path: Path) -> None:
    """TOML has no word for nothing, and 'none' would be read as a word."""
    with pytest.raises(ConfigurationError) as caught:
        write_rules([Rule(names="*", options={"weight_quant": None, "stride": None})], tmp_path / f"rules.{suffix}")
    assert str(caught.value).splitlines() == [
        "stride=None cannot be written to a file",
        "  at rule 1",
        "  a file holds numbers, words, names of classes that can be imported, and 'none' for a quantizer",
        "  Define a class at the top of a module, or register it as a quantizer; leave None out where it is the default.",
    ]
