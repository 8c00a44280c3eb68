"""What plugins register is validated where it is written."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant_core.errors import ConfigurationError, PluginError
from quant_core.plugins import Capabilities, Command, Layer, Op, Quantizer, QuantSupport, Target

ENTRIES = [
    Target(name="t", summary="s", exporter="m:f", suffix=".x", capabilities=Capabilities()),
    Quantizer(name="q", summary="s", quantizer="m.n:Class"),
    Layer(name="l", summary="s", float_type="torch.nn:Linear", quant_type="m:Outer.Inner"),
    Op(name="mine::op", summary="s", op="m:f", decomposition="m:g"),
    Command(name="c", summary="s", command="m:f"),
]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: type(entry).__name__)
def test_entries_are_frozen(entry: Any) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        entry.name = "other"


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: type(entry).__name__)
@pytest.mark.parametrize("name", ["", " padded"])
def test_a_name_is_a_word_to_type(entry: Any, name: str) -> None:
    with pytest.raises(PluginError) as caught:
        dataclasses.replace(entry, name=name)
    assert str(caught.value) == (
        f"{type(entry).__name__} has the name {name!r}\n"
        "  a name is not empty and has no space around it\n"
        "  Give it the name that users will type."
    )


@pytest.mark.parametrize("reference", ["module.attribute", "module:", ":f", "a b:f", "a:b:c", 3])
def test_code_is_named_by_reference(reference: Any) -> None:
    with pytest.raises(PluginError) as caught:
        Command(name="c", summary="s", command=reference)
    assert str(caught.value) == (
        f"Command 'c' has command={reference!r}\n"
        "  code is named as 'package.module:attribute', so that it is imported on first use only\n"
        "  Write the reference as a string of that form."
    )


@given(st.sets(st.integers(min_value=1, max_value=64), min_size=1))
def test_support_keeps_the_set_of_what_it_is_given(widths: set[int]) -> None:
    assert QuantSupport(bit_widths=sorted(widths)) == QuantSupport(bit_widths=frozenset(widths))
    assert QuantSupport(bit_widths=widths).bit_widths == widths


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"bit_widths": range(0)},
            "bit_widths is empty\n  a target that takes no value of it takes nothing at all\n"
            "  Leave the op and role out of the capabilities.",
        ),
        (
            {"bit_widths": 8},
            "bit_widths=8 is not a collection\n  it holds every value that the target takes, got a int\n"
            "  Write {8} for this value alone.",
        ),
        (
            {"bit_widths": {0, 8}},
            "bit_widths holds 0\n  a bit width is an integer of 1 or more\n"
            "  Write, for example, range(2, 9) for 2 to 8 bits.",
        ),
        (
            {"bit_widths": {8}, "signed": {1}},
            "signed=1 is not known\n  it is one of True, False\n  Choose one of these.",
        ),
        (
            {"bit_widths": {8}, "granularity": {"per_row"}},
            "granularity='per_row' is not known\n  it is one of per_tensor, per_channel, per_group\n"
            "  Choose one of these.",
        ),
        (
            {"bit_widths": {8}, "granularity": "per_tensor"},
            "granularity='per_tensor' is not a collection\n  it holds every value that the target takes, got a str\n"
            "  Write {'per_tensor'} for this value alone.",
        ),
        (
            {"bit_widths": {8}, "zero_point": "none"},
            "zero_point='none' is not known\n  it is one of zero, any\n  Choose one of these.",
        ),
        (
            {"bit_widths": {8}, "scale": "po2"},
            "scale='po2' is not known\n  it is one of float, power_of_two\n  Choose one of these.",
        ),
    ],
)
def test_support_refuses_what_has_no_meaning(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        QuantSupport(**fields)
    assert str(caught.value) == message


def test_capabilities_cannot_be_changed_from_outside() -> None:
    quant = {"quant::int weight": QuantSupport(bit_widths={8})}
    capabilities = Capabilities(quant=quant, aten=["conv2d.default"])
    quant.clear()
    assert list(capabilities.quant) == ["quant::int weight"]
    assert capabilities.aten == frozenset({"conv2d.default"})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"quant": {"quant::int output": QuantSupport(bit_widths={8})}},
            "'quant::int output' is not an op and a role\n"
            "  a key is an op of the dialect, a space, and one of weight, activation, bias\n"
            "  Write, for example, 'quant::int weight'.",
        ),
        (
            {"quant": {"quant::int bias": {8}}},
            "'quant::int bias' is mapped to {8}\n  what a target takes of an op and role is a QuantSupport\n"
            "  Write, for example, QuantSupport(bit_widths=range(2, 9)).",
        ),
        (
            {"aten": "relu.default"},
            "aten='relu.default' is not a collection\n  it holds every value that the target takes, got a str\n"
            "  Write {'relu.default'} for this value alone.",
        ),
    ],
)
def test_capabilities_refuse_what_has_no_meaning(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Capabilities(**fields)
    assert str(caught.value) == message
