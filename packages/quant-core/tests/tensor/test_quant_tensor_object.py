"""The quantized tensor as an object: its integers, its validity, what it is as a Python object, and what it refuses."""

from __future__ import annotations

import copy
import io
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from quant_core.errors import InputError
from quant_core.tensor import QuantTensor


def quantized(
    integers: torch.Tensor, *, scale: float = 0.5, zero_point: float = 0.0, bits: float = 4.0, **fields: bool
) -> QuantTensor:
    fields.setdefault("signed", True)
    value = (integers.float() - zero_point) * scale
    return QuantTensor(value, torch.tensor(scale), torch.tensor(zero_point), torch.tensor(bits), **fields)


@given(
    bits=st.integers(2, 16),
    signed=st.booleans(),
    narrow=st.booleans(),
    scale=st.floats(1e-4, 1e4),
    zero_point=st.integers(-100, 100),
)
def test_integers_round_trip_and_a_level_outside_of_the_range_is_not_valid(
    bits: int, signed: bool, narrow: bool, scale: float, zero_point: int
):
    low = -(2 ** (bits - 1)) + narrow if signed else 0
    high = 2 ** (bits - 1) - 1 if signed else 2**bits - 1 - narrow
    integers = torch.tensor([low, low + 1, (low + high) // 2, high])
    options = {"scale": scale, "zero_point": float(zero_point), "bits": bits, "signed": signed, "narrow_range": narrow}
    x = quantized(integers, **options)
    assert [int(bound) for bound in x.range()] == [low, high]
    assert x.is_valid
    assert torch.equal(x.int().long(), integers)
    assert torch.equal(x.int(float_datatype=True).long(), integers)
    assert not quantized(torch.tensor([high + 1]), **options).is_valid
    assert not quantized(torch.tensor([low - 1]), **options).is_valid


@pytest.mark.parametrize(
    ("bits", "signed", "dtype"),
    [
        (4, True, torch.int8),
        (8, True, torch.int8),
        (8, False, torch.uint8),
        (9, True, torch.int16),
        (15, False, torch.int16),
        (16, False, torch.int32),
        (32, True, torch.int32),
        (33, True, torch.int64),
        (1, True, torch.int8),
    ],
)
def test_the_integer_type_is_the_first_that_holds_the_range(bits: int, signed: bool, dtype: torch.dtype):
    assert quantized(torch.ones(1), bits=bits, signed=signed).int().dtype == dtype


@pytest.mark.parametrize(
    "fields",
    [
        {"value": torch.tensor([0.6])},
        {"value": torch.tensor([math.nan])},
        {"value": torch.tensor([math.inf])},
        {"scale": torch.tensor(-0.5)},
        {"scale": torch.tensor(0.0)},
        {"scale": torch.tensor(math.nan)},
        {"scale": torch.tensor([0.5, 0.5])},
        {"zero_point": torch.tensor(math.inf)},
        {"zero_point": torch.tensor(0.5)},
        {"bit_width": torch.tensor(math.nan)},
        {"bit_width": torch.tensor([4.0, 4.0])},
    ],
)
def test_what_contradicts_itself_is_not_valid(fields: dict[str, torch.Tensor]):
    x = quantized(torch.tensor([3]))
    assert x.is_valid
    assert not x.replace(**fields).is_valid


def test_a_sum_of_many_products_is_valid_though_each_addition_was_rounded():
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randint(-128, 128, shape, generator=generator) for shape in ((64, 1024), (1024, 32)))
    grids = ({"scale": 0.0173, "bits": 8, "symmetric": True}, {"scale": 0.00291, "bits": 8, "symmetric": True})
    total = quantized(x, **grids[0]) @ quantized(w, **grids[1])
    assert torch.equal(total.int().long(), x @ w)
    assert total.is_valid
    assert not total.replace(value=total.value + 0.4 * total.scale).is_valid


@pytest.mark.parametrize(("dtype", "largest"), [(torch.float16, 1023), (torch.bfloat16, 127)])
def test_integers_are_exact_in_half_precision_as_far_as_it_tells_levels_apart(dtype: torch.dtype, largest: int):
    integers = torch.arange(-largest, largest + 1)
    x = quantized(integers, scale=0.3, bits=11).to(dtype)
    assert x.scale.dtype == torch.float32
    assert torch.equal(x.int().long(), integers)


def test_bfloat16_does_not_tell_all_levels_of_nine_bits_apart_and_says_so():
    assert not quantized(torch.arange(-256, 256), scale=0.3, bits=9).bfloat16().is_valid


def test_it_answers_like_a_tensor():
    x = quantized(torch.arange(6).reshape(2, 3))
    assert (x.shape, x.dtype, x.device, x.ndim) == ((2, 3), torch.float32, torch.device("cpu"), 2)
    assert (x.size(), x.size(1), x.dim(), x.numel(), len(x)) == ((2, 3), 3, 2, 6, 2)
    assert x.is_contiguous()
    assert not x.T.is_contiguous()
    assert not x.requires_grad
    assert x.tolist() == x.value.tolist()
    assert [type(row) for row in x] == [QuantTensor, QuantTensor]
    assert float(x[0, 1]) == 0.5
    assert x.T.shape == x.mT.shape == (3, 2)
    assert (x == x).dtype == torch.bool
    assert len({x, x}) == 1


def test_it_prints_its_grid():
    x = quantized(torch.tensor([1]), narrow_range=True, zero_on_grid=False)
    assert repr(x) == (
        "QuantTensor(value=tensor([0.5000]), scale=0.5, zero_point=0.0, bit_width=4.0, signed=True, narrow_range=True, "
        "zero_on_grid=False)"
    )


@pytest.mark.parametrize("name", ["backward", "data", "grad"])
def test_what_belongs_to_the_value_is_not_an_attribute(name: str):
    x = quantized(torch.tensor([1]))
    assert not hasattr(x, name)
    with pytest.raises(
        AttributeError, match=f"^'QuantTensor' object has no attribute '{name}'; take that of its .value$"
    ):
        getattr(x, name)


def test_an_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"^'QuantTensor' object has no attribute 'sclae'$"):
        _ = quantized(torch.tensor([1])).sclae


def test_it_is_immutable():
    x = quantized(torch.tensor([1]))
    with pytest.raises(AttributeError, match="cannot assign to field 'scale'"):
        x.scale = torch.tensor(1.0)


IMMUTABLE = "\n  a QuantTensor is immutable, so that its value and its scale stay in agreement\n  "


def _set_item(x: QuantTensor) -> None:
    x[0] = 1.0


@pytest.mark.parametrize(
    ("change", "what", "where", "fix"),
    [
        (lambda x: x.relu_(), "relu_", "", "Use relu instead, or change a clone of its .value."),
        (torch.relu_, "relu_", "", "Use relu instead, or change a clone of its .value."),
        (lambda x: x.add_(x), "add_", "", "Use add instead, or change a clone of its .value."),
        (_set_item, "__setitem__", "", "Use torch.where or masked_fill, or assign to a clone of its .value."),
        (nn.ReLU(inplace=True), "relu", "\n  at ReLU", "Set inplace=False."),
        (nn.Dropout(inplace=True).eval(), "dropout", "\n  at Dropout", "Set inplace=False."),
    ],
)
def test_changing_it_in_place_is_refused(change, what: str, where: str, fix: str):
    x = quantized(torch.tensor([1, -2]))
    with pytest.raises(InputError) as caught:
        change(x)
    assert str(caught.value) == f"{what} would change a QuantTensor in place{where}{IMMUTABLE}{fix}"
    assert torch.equal(x.int(), torch.tensor([1, -2]))


def test_an_augmented_assignment_binds_the_name_to_the_result():
    x = quantized(torch.tensor([1, -2]))
    before = x
    x += before
    assert torch.equal(x.int(), (before + before).int())
    assert torch.equal(before.int(), torch.tensor([1, -2]))


def test_writing_into_out_is_refused():
    x, out = quantized(torch.tensor([1])), torch.zeros(1)
    with pytest.raises(InputError) as caught:
        torch.add(x, x, out=out)
    assert str(caught.value) == (
        "add cannot write into out= with a QuantTensor among its operands\n"
        "  out= is a plain tensor, which cannot take the scale of the result\n"
        "  Use the returned tensor instead of out=."
    )
    assert torch.equal(out, torch.zeros(1))


def test_a_plain_tensor_takes_its_values_in_place():
    x, target = quantized(torch.tensor([1, -2])), torch.ones(2)
    target += x
    assert target.tolist() == [1.5, 0.0]
    target.copy_(x)
    target[:1] = x[1:]
    assert target.tolist() == [-1.0, -1.0]


TENSORS = ("value", "scale", "zero_point", "bit_width")
FLAGS = ("signed", "narrow_range", "training", "symmetric", "zero_on_grid")


def same(x: QuantTensor, y: QuantTensor) -> bool:
    tensors = all(torch.equal(getattr(x, name), getattr(y, name)) for name in TENSORS)
    return tensors and all(getattr(x, name) == getattr(y, name) for name in FLAGS)


def _save_and_load(x: QuantTensor) -> QuantTensor:
    file = io.BytesIO()
    torch.save(x, file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=True)


@pytest.mark.parametrize("through", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x)), _save_and_load])
def test_it_is_copied_pickled_and_saved_whole(through):
    x = quantized(torch.tensor([1, -2]), narrow_range=True, training=True, symmetric=True, zero_on_grid=False)
    assert same(x, through(x))


def test_it_goes_through_ordinary_modules():
    x = quantized(torch.arange(2 * 4 * 4 * 4).reshape(2, 4, 4, 4) % 16 - 8)
    pooled = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(), nn.Identity(), nn.Flatten()).eval()(x)
    assert isinstance(pooled, QuantTensor)
    assert pooled.scale is x.scale
    assert pooled.is_valid
    network = nn.Sequential(nn.Conv2d(4, 2, 3), nn.BatchNorm2d(2), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(8, 3))
    assert torch.equal(network.eval()(x), network(x.value))


def test_autocast_computes_with_its_value():
    x = quantized(torch.arange(-8, 8).reshape(4, 4), symmetric=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(x @ x, x.value @ x.value)  # bfloat16 does not hold the sum: a plain tensor
        assert F.linear(x, x.value).dtype == torch.bfloat16
        assert isinstance(x.flatten(), QuantTensor)
