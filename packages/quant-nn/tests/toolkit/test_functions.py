"""The two functions: the numbers that NVIDIA prints, laws over generated tensors, gradients, errors."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quant_core.errors import ConfigurationError, InputError
from quant_nn.toolkit import fake_tensor_quant, tensor_quant

SEED_FAKE = [0.9843, 0.8828, 0.9921, 0.4609, 0.0859, 0.1797, 0.3672, 0.5703, 0.3359, 0.2109]
SEED_INTEGERS = [126.0, 113.0, 127.0, 59.0, 11.0, 23.0, 47.0, 73.0, 43.0, 27.0]


def seed_tensor() -> torch.Tensor:
    torch.manual_seed(12345)
    return torch.rand(10)


def test_the_numbers_of_the_toolkit() -> None:
    x = seed_tensor()
    fake = fake_tensor_quant(x, x.abs().max())
    integers, scale = tensor_quant(x, x.abs().max())
    assert [round(v, 4) for v in fake.tolist()] == SEED_FAKE
    assert integers.tolist() == SEED_INTEGERS
    assert round(scale.item(), 4) == 128.0057


@given(
    seed=st.integers(0, 10**6),
    bits=st.integers(2, 12),
    unsigned=st.booleans(),
    narrow=st.booleans(),
    amax=st.floats(0.1, 10.0),
)
def test_integers_divided_by_the_scale_are_the_fake_quantized_tensor(
    seed: int, bits: int, unsigned: bool, narrow: bool, amax: float
) -> None:
    x = torch.randn(40, generator=torch.Generator().manual_seed(seed)) * 3
    x = x.abs() if unsigned else x
    options = {"num_bits": bits, "unsigned": unsigned, "narrow_range": narrow}
    integers, scale = tensor_quant(x, amax, **options)
    assert torch.allclose(integers / scale, fake_tensor_quant(x, amax, **options), rtol=1e-6, atol=0)
    assert torch.equal(integers, integers.round())
    high = 2**bits - 1 if unsigned else 2 ** (bits - 1) - 1
    low = 0 if unsigned else -high - (not narrow)
    assert low <= integers.min()
    assert integers.max() <= high
    again = fake_tensor_quant(integers / scale, amax, **options)
    assert torch.allclose(again, integers / scale, rtol=1e-6, atol=0)


def test_a_tensor_of_amax_per_channel_is_each_channel_by_itself() -> None:
    x = torch.randn(3, 5)
    amax = x.abs().amax(dim=1, keepdim=True)
    rows = torch.stack([fake_tensor_quant(row, row.abs().max(), num_bits=4) for row in x])
    assert torch.equal(fake_tensor_quant(x, amax, num_bits=4), rows)


def test_gradients_are_straight_through_in_the_range_and_none_beyond() -> None:
    x = torch.tensor([0.3, -0.9, 5.0], requires_grad=True)
    fake_tensor_quant(x, 1.0).sum().backward()
    assert x.grad.tolist() == [1.0, 1.0, 0.0]
    x.grad = None
    integers, scale = tensor_quant(x, 1.0)
    (integers / scale).sum().backward()
    assert x.grad.tolist() == [1.0, 1.0, 0.0]


def test_no_gradient_reaches_amax() -> None:
    amax = torch.tensor(1.0, requires_grad=True)
    assert not tensor_quant(torch.rand(3), amax)[1].requires_grad
    assert not fake_tensor_quant(torch.rand(3), amax).requires_grad


def test_zeros_stay_zeros() -> None:
    integers, scale = tensor_quant(torch.zeros(3), 0.0)
    assert integers.tolist() == [0, 0, 0]
    assert torch.isfinite(scale)
    assert fake_tensor_quant(torch.zeros(3), 0.0).tolist() == [0, 0, 0]


def test_the_output_has_the_dtype_asked_for() -> None:
    assert tensor_quant(torch.rand(3), 1.0, output_dtype=torch.int8)[0].dtype == torch.int8
    assert fake_tensor_quant(torch.rand(3).double(), 1.0, output_dtype=torch.float64).dtype == torch.float64

    assert tensor_quant(torch.ones(1), 1.0, output_dtype=torch.uint8, unsigned=True)[0].item() == 255


@pytest.mark.parametrize("bits", [25, 31, 32])
@pytest.mark.parametrize("dtype", [torch.int64, torch.float64])
def test_integers_of_many_bits_are_exact(bits: int, dtype: torch.dtype) -> None:
    integers, _ = tensor_quant(torch.tensor([1.0, -1.0, 0.5, 9.0]), 1.0, num_bits=bits, output_dtype=dtype)
    high = 2 ** (bits - 1) - 1
    assert integers.tolist() == [high, -high, 2 ** (bits - 2), high]


@pytest.mark.parametrize("unsigned", [True, False])
def test_where_amax_is_0_everything_is_0(unsigned: bool) -> None:
    x, amax = torch.tensor([[0.5, 0.9], [0.5, 0.9]]), torch.tensor([[0.0], [1.0]])
    integers, scale = tensor_quant(x, amax, unsigned=unsigned)
    assert integers[0].tolist() == [0, 0]
    assert fake_tensor_quant(x, amax, unsigned=unsigned)[0].tolist() == [0, 0]
    assert torch.equal(integers[1], tensor_quant(x[1], 1.0, unsigned=unsigned)[0])
    assert torch.isfinite(scale).all()


@pytest.mark.parametrize(
    ("dtype", "options", "text"),
    [
        (torch.int8, {"unsigned": True}, "8 bits\n  they go from 0 to 255"),
        (torch.uint8, {}, "8 bits\n  they go from -127 to 127"),
        (torch.bool, {"num_bits": 2, "unsigned": True}, "2 bits\n  they go from 0 to 3"),
        (torch.float16, {"num_bits": 13}, "13 bits\n  they go from -4095 to 4095"),
        (torch.float32, {"num_bits": 26}, "26 bits\n  they go from -33554431 to 33554431"),
    ],
)
def test_a_dtype_holds_all_integers_or_is_refused(dtype: torch.dtype, options: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        tensor_quant(torch.ones(1), 1.0, output_dtype=dtype, **options)
    assert str(caught.value) == (
        f"output_dtype={dtype} does not hold integers of {text}, and not all of them are numbers of that dtype\n"
        "  Use torch.int64, or torch.float64."
    )


def test_floats_are_written_as_floats() -> None:
    with pytest.raises(ConfigurationError) as caught:
        fake_tensor_quant(torch.ones(1), 1.0, output_dtype=torch.int8)
    assert str(caught.value) == (
        "output_dtype=torch.int8 holds no fractions\n"
        "  what integers stand for are floats\n"
        "  Use tensor_quant() for the integers, or a dtype such as torch.float."
    )


def test_it_compiles_as_one_graph() -> None:
    x = torch.randn(8)
    compiled = torch.compile(lambda x: fake_tensor_quant(x, 1.0, num_bits=5), fullgraph=True, backend="eager")
    assert torch.equal(compiled(x), fake_tensor_quant(x, 1.0, num_bits=5))


@pytest.mark.parametrize(
    ("x", "options", "text"),
    [
        (
            [1.0],
            {"amax": float("nan")},
            "amax is no largest magnitude\n"
            "  it is finite and not negative, and here from nan to nan\n"
            "  Look for infinities and NaN in the tensor that it was computed from.",
        ),
        (
            [1.0, 2.0],
            {"amax": torch.ones(3)},
            "amax of shape (3,) does not fit a tensor of shape (2,)\n"
            "  it is broadcast to the tensor: one element, or one for each index along an axis and 1 elsewhere\n"
            "  Compute it with keepdim=True, for example x.abs().amax(dim=(1, 2, 3), keepdim=True).",
        ),
        (
            [1.0, float("nan")],
            {"amax": 1.0},
            "NaN cannot be quantized\n"
            "  1 of the 2 elements of the tensor are NaN\n"
            "  Look for infinities and NaN in the data, and in the weights of the layers before.",
        ),
        (
            [-1.5],
            {"amax": 1.0, "unsigned": True},
            "negative numbers have no unsigned integers\n"
            "  the smallest of the tensor is -1.5\n"
            "  Set unsigned=False, or quantize behind a ReLU.",
        ),
    ],
)
def test_bad_tensors_are_refused(x: list[float], options: dict[str, object], text: str) -> None:
    with pytest.raises(InputError) as caught:
        tensor_quant(torch.tensor(x), **options)
    assert str(caught.value) == text


def test_a_number_of_bits_is_checked() -> None:
    with pytest.raises(ConfigurationError) as caught:
        fake_tensor_quant(torch.ones(1), 1.0, num_bits=1)
    assert str(caught.value) == (
        "num_bits=1 is not a number of bits\n"
        "  integers have a whole number of bits, from 2 to 32\n"
        "  Use 8, or 4 for weights."
    )
