"""The native kernels and the torch operations are one function: values to the bit, gradients to what the torch path stores."""

import shutil
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from quant_core.components import (
    AbsMax,
    ConstBitWidth,
    ConstScaling,
    IntQuant,
    PerChannel,
    PerTensor,
    StatsFromParameterScaling,
)
from quant_core.native import grain_of, kernels
from quant_core.ops import ROUNDING_MODES, quantize_int
from quant_core.ops.integer import fake_quantize
from quant_core.ops.integer_gradients import quantize_with_gradient
from quant_core.ops.magnitude import largest_magnitude
from quant_core.ops.native_gradients import quantize_natively

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="this machine has no C compiler")

SHAPES = [(0,), (1,), (7,), (4099,), (3, 5), (2, 3, 17, 5), (1, 1, 1, 1)]
MODES = sorted(set(ROUNDING_MODES) & {"ROUND", "HALF_UP", "FLOOR", "CEIL", "TO_ZERO"})


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    shape = draw(st.sampled_from(SHAPES))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    x = torch.randn(shape, generator=generator) * draw(st.sampled_from([0.3, 2.0, 30.0]))
    if draw(st.booleans()):  # ties, exact levels and zeros
        x = (x * 4).round() / 4
    grain = draw(st.sampled_from([None, *range(len(shape))])) if x.numel() else None
    scale_shape = [] if grain is None else [size if axis == grain else 1 for axis, size in enumerate(shape)]
    scale = torch.rand(scale_shape, generator=generator) + 0.1
    if draw(st.booleans()):
        scale = torch.full_like(scale, 0.5)
    if grain is None and len(shape) == 4 and draw(st.booleans()):
        x = x.contiguous(memory_format=torch.channels_last)
    zero_point = draw(st.sampled_from([0, -1.0, 2.0]))
    low, high = draw(st.sampled_from([(-8.0, 7.0), (-7.0, 7.0), (0.0, 15.0), (0.0, 3.0), (-128.0, 127.0), (-2.0, 1.0)]))
    return {
        "x": x,
        "scale": scale,
        "zero_point": zero_point if zero_point == 0 else torch.full_like(scale, zero_point),
        "low": low,
        "high": high,
        "rounding_mode": draw(st.sampled_from(MODES)),
        "masked": draw(st.booleans()),
        "rectify": low == 0.0 and zero_point == 0 and draw(st.booleans()),
    }


def run(function: Any, case: dict[str, Any], **more: Any) -> list[Tensor | None]:
    """The value, and the gradients of input, scale, zero-point, and both ends of the range."""
    names = ("x", "scale", "zero_point", "low", "high")
    leaves = {
        name: torch.as_tensor(case[name], dtype=torch.float32).clone().requires_grad_()
        if isinstance(case[name], Tensor) or (name in ("low", "high") and case["masked"])
        else case[name]
        for name in names
    }
    if case["x"].dim() == 4:
        leaves["x"] = case["x"].clone(memory_format=torch.preserve_format).requires_grad_()
    y = function(*(leaves[name] for name in names), case["rounding_mode"], rectify=case["rectify"], **more)
    y.backward(torch.sin(torch.arange(y.numel(), dtype=y.dtype)).view(y.shape))
    return [y.detach(), *(leaf.grad if isinstance(leaf, Tensor) else None for leaf in leaves.values())]


@settings(max_examples=150, deadline=None)
@given(cases())
def test_values_and_gradients_are_those_of_the_torch_operations(case: dict[str, Any]) -> None:
    if case["rectify"] and not case["masked"]:
        case = {**case, "rectify": False}
    native = run(quantize_natively, case, masked=case["masked"], differentiable=True)
    torch_ = run(quantize_with_gradient, case, masked=case["masked"])
    assert native[0] is not None
    assert torch_[0] is not None
    assert torch.equal(native[0], torch_[0])
    assert torch.equal(*(result[1] if result[1] is not None else torch.zeros(()) for result in (native, torch_)))
    g = torch.sin(torch.arange(case["x"].numel(), dtype=torch.float32)).abs().sum()
    exact = case["x"] / case["scale"] + case["zero_point"]
    kept = 1.0 if case["masked"] or exact.numel() == 0 else max(1.0, exact.abs().max().item())
    # The torch operations keep rounding errors with 11 bits, the kernels with 14; the rest is the order of float32 sums.
    lost = g * 2**-11 * kept + 2**-18 * g * 128
    for name, found, wanted in zip(("scale", "zero_point", "low", "high"), native[2:], torch_[2:], strict=True):
        one, other = (torch.zeros(()) if gradient is None else gradient for gradient in (found, wanted))
        assert torch.all((one - other).abs() <= lost), name


@settings(max_examples=50, deadline=None)
@given(cases())
def test_without_a_gradient_only_the_value_is_computed(case: dict[str, Any]) -> None:
    arguments = [case[name] for name in ("x", "scale", "zero_point", "low", "high", "rounding_mode")]
    native = quantize_natively(*arguments, masked=True, rectify=case["rectify"], differentiable=False)
    assert native is not None
    assert torch.equal(native, fake_quantize(*arguments, rectify=case["rectify"]))
    assert native.stride() == case["x"].stride()


def test_two_bytes_are_kept_for_each_element() -> None:
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    x = torch.randn(1000, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = quantize_natively(
            x, torch.tensor(0.1), 0, 0.0, 15.0, "ROUND", masked=True, rectify=True, differentiable=True
        )
    assert y is not None
    assert sum(kept.values()) == 2000 + 4


@pytest.mark.parametrize("threads", [1, 2])
def test_sums_do_not_depend_on_the_number_of_threads(threads: int) -> None:
    library = kernels()
    assert library is not None
    x = torch.randn(300_000, generator=torch.Generator().manual_seed(0))
    scale = torch.tensor(0.1)
    grain = grain_of(x, scale)
    assert grain is not None
    found = []
    before = torch.get_num_threads()
    for count in (1, threads):
        torch.set_num_threads(count)
        y, code = library.quantize(x, scale, None, grain, (-8.0, 7.0), "ROUND", rectify=False, keep=True)
        assert code is not None
        found.append([y, *library.gradient(x.cos(), code, None, grain, (-8.0, 7.0))])
    torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize(
    ("x", "scale"),
    [
        (torch.ones(3, dtype=torch.float64), torch.tensor(1.0)),
        (torch.ones(3), torch.tensor(1.0, dtype=torch.float64)),
        (torch.ones(4, 6)[:, ::2], torch.tensor(1.0)),
        (torch.ones(4, 6), torch.ones(4, 6)),
        (torch.ones(2, 3, 4, 4).contiguous(memory_format=torch.channels_last), torch.ones(3, 1, 1)),
        (torch.ones(3, device="meta"), torch.tensor(1.0, device="meta")),
    ],
    ids=["float64", "float64 scale", "gaps", "a scale for each element", "channels last per channel", "meta"],
)
def test_other_tensors_are_left_to_torch(x: Tensor, scale: Tensor) -> None:
    assert grain_of(x, scale) is None


def test_under_vmap_torch_computes() -> None:
    x = torch.randn(4, 8)
    y = torch.vmap(lambda row: quantize_or_fake(row))(x)
    assert torch.equal(y, fake_quantize(x, torch.tensor(0.5), 0, -8.0, 7.0))


def quantize_or_fake(row: Tensor) -> Tensor:
    options: Any = (row, torch.tensor(0.5), 0, -8.0, 7.0, "ROUND")
    done = quantize_natively(*options, masked=True, rectify=False, differentiable=False)
    assert done is None
    return fake_quantize(*options)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 70), st.integers(0, 2**20), st.booleans())
def test_the_largest_magnitude_and_its_gradient(rows: int, size: int, seed: int, ties: bool) -> None:
    x = torch.randn(rows, size, generator=torch.Generator().manual_seed(seed))
    x = (x * 2).round() if ties else x
    found, wanted = x.clone().requires_grad_(), x.clone().requires_grad_()
    g = torch.arange(1.0, rows + 1)
    largest_magnitude(found).backward(g)
    wanted.abs().amax(dim=1).backward(g)
    assert found.grad is not None
    assert wanted.grad is not None
    torch.testing.assert_close(found.grad, wanted.grad)


def test_a_value_that_is_not_finite_is_not_hidden() -> None:
    x = torch.tensor([[1.0, float("nan")], [float("inf"), 1.0]], requires_grad=True)
    assert torch.equal(largest_magnitude(x).isnan(), torch.tensor([True, False]))
    assert largest_magnitude(x)[1].item() == float("inf")
    y = quantize_natively(
        torch.tensor([float("nan"), float("inf"), -float("inf")], requires_grad=True),
        torch.tensor(0.5),
        0,
        -8.0,
        7.0,
        "ROUND",
        masked=True,
        rectify=False,
        differentiable=True,
    )
    assert y is not None
    assert y[0].isnan()
    assert y[1:].tolist() == [3.5, -4.0]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**20), st.booleans(), st.booleans(), st.sampled_from([2, 4, 8]), st.sampled_from(MODES))
def test_weights_at_their_largest_value_take_one_function_with_the_same_numbers(
    seed: int, per_channel: bool, narrow: bool, bits: int, mode: str
) -> None:
    weight = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(seed))
    granularity = PerChannel(0) if per_channel else PerTensor()
    options: Any = {"signed": True, "narrow_range": narrow, "rounding_mode": mode, "clamp_gradient": "pass"}
    quant = IntQuant(StatsFromParameterScaling(AbsMax(granularity), nn.Linear(1, 1)), ConstBitWidth(bits), **options)
    together, apart = weight.clone().requires_grad_(), weight.clone().requires_grad_()
    value, scale, _, _ = quant(together)
    assert type(value.grad_fn).__name__ == "_ByLargestBackward"
    wanted_scale = quant.grid(apart)[0]
    wanted = quantize_int(apart, wanted_scale, 0, bits, **options)
    assert torch.equal(value, wanted)
    assert torch.equal(scale, wanted_scale)
    g = torch.sin(torch.arange(weight.numel())).view_as(weight)
    ((value * g).sum() + scale.sum()).backward()
    ((wanted * g).sum() + wanted_scale.sum()).backward()
    assert together.grad is not None
    assert apart.grad is not None
    torch.testing.assert_close(together.grad, apart.grad, rtol=1e-5, atol=1e-5)


def test_a_scaling_put_in_the_place_of_the_largest_value_is_used() -> None:
    quant = IntQuant(
        StatsFromParameterScaling(AbsMax(), nn.Linear(1, 1)), ConstBitWidth(3), signed=True, clamp_gradient="pass"
    )
    quant.scaling_impl = ConstScaling(1.0)
    assert quant(torch.tensor([0.3, -2.0], requires_grad=True))[0].tolist() == [0.25, -1.0]
