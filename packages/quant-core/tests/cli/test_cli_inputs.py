"""`--input` and `--option`: what they mean, and what has no meaning."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quant_core.cli.errors import ArgumentError
from quant_core.cli.inputs import DTYPES, InputSpec, draw_inputs, parse_input, parse_inputs
from quant_core.cli.options import parse_options

SHAPES = st.lists(st.integers(min_value=1, max_value=5), min_size=1, max_size=4).map(tuple)
SPECS = st.builds(
    InputSpec, shape=SHAPES, dtype=st.sampled_from(DTYPES), name=st.none() | st.sampled_from(["x", "mask_1"])
)


@given(SPECS, st.sampled_from("x,"))
def test_what_is_written_is_what_is_read(spec: InputSpec, separator: str) -> None:
    name = "" if spec.name is None else f"{spec.name}="
    text = f"{name}{separator.join(map(str, spec.shape))}:{spec.dtype}"
    assert parse_input(text) == spec


@given(SPECS, st.integers(min_value=0, max_value=2**31))
def test_inputs_have_the_shape_and_dtype_asked_for_and_depend_on_the_seed_only(spec: InputSpec, seed: int) -> None:
    (first, named), (again, named_again) = (draw_inputs([spec], seed=seed) for _ in range(2))
    tensors = [*first, *named.values()]
    assert [str(x.dtype) for x in tensors] == [f"torch.{spec.dtype}"]
    assert [tuple(x.shape) for x in tensors] == [spec.shape]
    assert list(named) == ([] if spec.name is None else [spec.name])
    for one, other in zip(tensors, [*again, *named_again.values()], strict=True):
        assert torch.equal(one, other)


def test_integers_are_valid_indices_of_every_table() -> None:
    (indices,), _ = draw_inputs([parse_input("1000:int64")], seed=0)
    assert set(indices.tolist()) == {0, 1}


def test_positional_inputs_keep_their_order() -> None:
    args, kwargs = draw_inputs(parse_inputs(["1x2", "k=3", "4"]), seed=0)
    assert [tuple(x.shape) for x in args] == [(1, 2), (4,)]
    assert tuple(kwargs["k"].shape) == (3,)


@pytest.mark.parametrize("text", ["", "x", "1x", "1xx2", "-1x2", "1x2:", "=1x2", "1.5x2", "1x2:int64:int8", "2x=3"])
def test_a_text_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        parse_input(text)
    assert str(caught.value) == (
        f"{text!r} is not an input\n"
        "  at --input\n"
        "  an input is [NAME=]SHAPE[:DTYPE], with sizes separated by x or commas\n"
        "  Write, for example, --input 1x3x32x32, --input 1x16:int64 or --input mask=1x16:bool."
    )


@pytest.mark.parametrize(("text", "count"), [("1000000000000x4096", "4.1e+15"), (f"{2**64}:int64", "1.84e+19")])
def test_a_size_beyond_all_memory_is_refused(text: str, count: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        draw_inputs([parse_input(text)], seed=0)
    assert str(caught.value) == (
        f"an example input of shape {text.partition(':')[0]} is too large\n"
        "  at --input\n"
        f"  it has {count} elements, and there is no memory for them\n"
        "  Give a smaller shape; a batch of 1 or 2 is enough to export."
    )


def test_a_size_of_zero_is_refused() -> None:
    with pytest.raises(ArgumentError) as caught:
        parse_input("0x3")
    assert str(caught.value) == (
        "'0x3' holds a size of 0\n"
        "  at --input\n"
        "  an example input without elements shows nothing of what the model computes\n"
        "  Give every axis a size of 1 or more."
    )


def test_an_unknown_dtype_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(ArgumentError) as caught:
        parse_input("1x3:in64")
    assert str(caught.value) == (
        "'1x3:in64' has the unknown dtype 'in64'\n"
        "  at --input\n"
        f"  a dtype is one of {', '.join(DTYPES)}\n"
        "  Did you mean 'int64' or 'int16'?"
    )


def test_a_model_has_inputs() -> None:
    with pytest.raises(ArgumentError) as caught:
        parse_inputs([])
    assert str(caught.value) == (
        "no example input\n"
        "  at --input\n"
        "  the model is captured, and compared with the artifact, on example inputs\n"
        "  Give the shape of each input of the model, for example --input 1x3x32x32."
    )


def test_a_keyword_has_one_value() -> None:
    with pytest.raises(ArgumentError) as caught:
        parse_inputs(["k=1", "k=2"])
    assert str(caught.value) == (
        "the input 'k' is given twice\n"
        "  at --input\n"
        "  a keyword input has one value\n"
        "  Leave one of the two --input k=… out."
    )


def test_option_values_are_json_or_strings() -> None:
    texts = ["a=1", "b=1.5", "c=true", "d=null", "e=[1, 2]", "f=word", 'g="3"', "h=", "i=x=y"]
    assert parse_options(texts) == {
        "a": 1,
        "b": 1.5,
        "c": True,
        "d": None,
        "e": [1, 2],
        "f": "word",
        "g": "3",
        "h": "",
        "i": "x=y",
    }


@pytest.mark.parametrize("text", ["opset", "=3", "a b=3", ""])
def test_an_option_without_key_or_value_is_refused(text: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        parse_options([text])
    assert str(caught.value) == (
        f"{text!r} is not an option\n"
        "  at --option\n"
        "  an option of a target is KEY=VALUE\n"
        "  Write, for example, --option opset_version=19."
    )


def test_an_option_has_one_value() -> None:
    with pytest.raises(ArgumentError) as caught:
        parse_options(["a=1", "a=b"])
    assert str(caught.value) == (
        "the option 'a' is given twice\n  at --option\n  it is 1 first and 'b' then\n  Leave one of them out."
    )
