"""Integer fake quantization: three spellings of one function, equal in values and gradients."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from quant_core import ops
from quant_core.ops.integer import integer_range, quantize_int


def composed(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | float,
    bit_width: Tensor | float,
    *,
    signed: bool,
    narrow_range: bool,
    rounding_mode: str,
    clamp_gradient: str,
    rectify: bool,
) -> Tensor:
    """The definition, written out in operations with straight-through gradients."""
    low, high = integer_range(bit_width, signed=signed, narrow_range=narrow_range)
    levels = (torch.relu(x) if rectify else x) / scale + zero_point
    rounded = ops.rounding_ste(levels, rounding_mode)
    clamped = ops.tensor_clamp(rounded, low, high) if clamp_gradient == "masked" else ops.clamp_ste(rounded, low, high)
    return (clamped - zero_point) * scale


def run(function: Any, x: Tensor, scale: Tensor, zero_point: Tensor | None, bits: Tensor, **options: Any) -> Any:
    """The value, and the gradients of input, scale, zero-point and bit width for a fixed incoming gradient."""
    leaves = [t.clone().requires_grad_() if t is not None else None for t in (x, scale, zero_point, bits)]
    y = function(leaves[0], leaves[1], 0 if leaves[2] is None else leaves[2], leaves[3], **options)
    y.backward(torch.sin(torch.arange(y.numel(), dtype=y.dtype)).view_as(y))
    return y.detach(), [None if leaf is None else leaf.grad for leaf in leaves]


def assert_same_gradients(found: list[Tensor | None], wanted: list[Tensor | None], tolerance: float) -> None:
    """No gradient and a gradient of zero are the same."""
    for name, one, other in zip(("x", "scale", "zero_point", "bits"), found, wanted, strict=True):
        both = [torch.zeros(()) if gradient is None else gradient for gradient in (one, other)]
        if one is None or other is None:
            assert all(torch.all(gradient == 0) for gradient in both), name
        else:
            torch.testing.assert_close(
                *both, rtol=tolerance, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}"
            )


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    signed = draw(st.booleans())
    zero_point = draw(st.one_of(st.none(), st.integers(0, 2)))
    clamp_gradient = draw(st.sampled_from(["masked", "pass"]))
    plain = not signed and zero_point is None and clamp_gradient == "masked"
    dtype = torch.float64
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    shape = draw(st.sampled_from([(), (4, 1, 1), (1, 4, 1, 1)]))
    return {
        "x": torch.randn(2, 4, 3, 5, generator=generator, dtype=dtype) * 2,
        "scale": torch.rand(shape, generator=generator, dtype=dtype) * 0.5 + 0.1,
        "zero_point": None if zero_point is None else torch.tensor(float(zero_point), dtype=dtype),
        "bits": torch.tensor(float(draw(st.integers(2, 8))), dtype=dtype),
        "signed": signed,
        "narrow_range": draw(st.booleans()),
        "rounding_mode": draw(st.sampled_from(ops.ROUNDING_MODES)),
        "clamp_gradient": clamp_gradient,
        "rectify": draw(st.booleans()) if plain else False,
    }


@settings(max_examples=200, deadline=None)
@given(cases())
def test_fused_equals_composed_in_values_and_gradients(case: dict[str, Any]) -> None:
    y, gradients = run(quantize_int, **case)
    expected, expected_gradients = run(composed, **case)
    assert torch.equal(y, expected)
    assert_same_gradients(gradients, expected_gradients, 1e-9)


@settings(max_examples=30, deadline=None)
@given(cases())
def test_the_float32_gradient_of_the_scale_is_exact_up_to_the_stored_residual(case: dict[str, Any]) -> None:
    single = {key: value.float() if isinstance(value, Tensor) else value for key, value in case.items()}
    x, scale, bits = single["x"], single["scale"], single["bits"]
    options = {key: value for key, value in single.items() if key not in ("x", "scale", "zero_point", "bits")}
    zero_point = 0.0 if single["zero_point"] is None else single["zero_point"]
    y = composed(x, scale, zero_point, bits, **options)
    _, found = run(quantize_int, **single)
    _, wanted = run(composed, **single)
    # Each term of the sum is a residual, rounded to float16 with 11 significant bits, or a bound of the range.
    residual = ((torch.relu(x) if case["rectify"] else x) / scale - y / scale).abs()
    size = (residual + (y / scale).abs()).sum_to_size(scale.shape)
    assert torch.all((found[1] - wanted[1]).abs() <= 2**-11 * residual.sum_to_size(scale.shape) + 2**-20 * size)


@settings(max_examples=12, deadline=None)
@given(cases())
def test_compiled_equals_eager(case: dict[str, Any]) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(quantize_int, fullgraph=True, backend="aot_eager")
    y, gradients = run(quantize_int, **case)
    expected, expected_gradients = run(compiled, **case)
    assert torch.equal(y, expected)
    assert_same_gradients(gradients, expected_gradients, 1e-9)


class Quantize(torch.nn.Module):
    def __init__(self, case: dict[str, Any]) -> None:
        super().__init__()
        self.options = {k: v for k, v in case.items() if k not in ("x", "scale", "zero_point", "bits")}
        self.scale = torch.nn.Parameter(case["scale"])
        self.register_buffer("zero_point", case["zero_point"])
        self.register_buffer("bits", case["bits"])

    def forward(self, x: Tensor) -> Tensor:
        zero_point = 0 if self.zero_point is None else self.zero_point
        return quantize_int(x, self.scale, zero_point, self.bits, **self.options)


@settings(max_examples=12, deadline=None)
@given(cases())
def test_captured_equals_eager(case: dict[str, Any]) -> None:
    module = Quantize(case)
    exported = torch.export.export(module, (case["x"],), strict=False)
    assert [str(n.target) for n in exported.graph.nodes if "quant." in str(n.target)] == ["quant.int.default"]
    assert torch.equal(exported.module()(case["x"]), module(case["x"]))


@settings(max_examples=30, deadline=None)
@given(cases())
def test_the_gradient_of_the_op_is_the_gradient_of_the_eager_spelling(case: dict[str, Any]) -> None:
    case = {**case, "clamp_gradient": "masked", "rectify": False}

    def op(x: Tensor, scale: Tensor, zero_point: Tensor | float, bits: Tensor, **options: Any) -> Tensor:
        zero = torch.as_tensor(zero_point, dtype=x.dtype)
        names = ("signed", "narrow_range", "rounding_mode")
        return torch.ops.quant.int(x, scale, zero, bits, **{name: options[name] for name in names})

    y, gradients = run(op, **case)
    expected, expected_gradients = run(quantize_int, **case)
    assert torch.equal(y, expected)
    assert_same_gradients(gradients, expected_gradients, 1e-9)


@settings(max_examples=50, deadline=None)
@given(cases())
def test_laws_of_quantization(case: dict[str, Any]) -> None:
    options = {k: v for k, v in case.items() if k not in ("x", "scale", "zero_point", "bits")}
    zero_point = 0.0 if case["zero_point"] is None else case["zero_point"]

    def quantize(x: Tensor) -> Tensor:
        return quantize_int(x, case["scale"], zero_point, case["bits"], **options)

    y = quantize(case["x"])
    levels = y / case["scale"] + zero_point
    low, high = integer_range(case["bits"], signed=case["signed"], narrow_range=case["narrow_range"])
    assert torch.allclose(levels, levels.round(), atol=1e-6)
    assert levels.round().min() >= low
    assert levels.round().max() <= high
    larger = quantize(case["x"] + 0.1)
    assert torch.all(larger >= y)
    if options["rounding_mode"] in ("ROUND", "HALF_UP"):  # others may leave a level by the last bit of a division
        assert torch.allclose(quantize(y), y)


def test_per_channel_equals_per_tensor_on_each_slice() -> None:
    x, scale = torch.randn(3, 4, 5), torch.tensor([0.1, 0.2, 0.3, 0.4]).view(1, 4, 1)
    whole = quantize_int(x, scale, 0, 4, signed=True)
    for channel in range(4):
        alone = quantize_int(x[:, channel], scale[0, channel, 0], 0, 4, signed=True)
        assert torch.equal(whole[:, channel], alone)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32_and_rounded_once(dtype: torch.dtype) -> None:
    x = torch.randn(1000).to(dtype)
    scale = torch.tensor(0.0123)
    wanted = quantize_int(x.float(), scale, 0, 8, signed=True).to(dtype)
    found = quantize_int(x.requires_grad_(), scale, 0, 8, signed=True)
    assert found.dtype == dtype
    assert torch.equal(found, wanted)
    found.sum().backward()
    assert x.grad.dtype == dtype


@pytest.mark.parametrize(("rectify", "limit"), [(False, 2), (True, 2)])
def test_two_bytes_per_element_are_kept_for_backward(rectify: bool, limit: int) -> None:
    kept: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel() * tensor.element_size())
        return tensor

    x = torch.randn(10_000, requires_grad=True)
    scale = torch.tensor(0.1, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        quantize_int(x, scale, 0, 4, signed=not rectify, rectify=rectify)
    assert sum(kept) <= limit * x.numel() + 16


def test_channels_last_input_gives_the_same_gradients() -> None:
    x = torch.randn(2, 4, 8, 8)
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        leaf = x.clone(memory_format=layout).requires_grad_()
        scale = torch.tensor(0.2, requires_grad=True)
        y = quantize_int(leaf, scale, 0, 3, signed=True)
        y.backward(torch.ones_like(x).cumsum(0))
        results.append((y.detach(), leaf.grad, scale.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("bits", "signed", "narrow", "expected"),
    [
        (8, True, False, (-128, 127)),
        (8, True, True, (-127, 127)),
        (8, False, False, (0, 255)),
        (8, False, True, (0, 254)),
        (2, True, True, (-1, 1)),
    ],
)
def test_integer_range(bits: int, signed: bool, narrow: bool, expected: tuple[int, int]) -> None:
    assert integer_range(bits, signed=signed, narrow_range=narrow) == expected
    as_tensors = integer_range(torch.tensor(float(bits)), signed=signed, narrow_range=narrow)
    assert tuple(float(bound) for bound in as_tensors) == expected


def test_the_gradient_of_a_scale_far_too_small_is_finite() -> None:
    x = torch.tensor([1.0, 0.3])
    scale = torch.tensor(1e-6, requires_grad=True)
    quantize_int(x, scale, 0, 8, signed=True, clamp_gradient="pass").backward(torch.tensor([0.0, 1.0]))
    assert torch.isfinite(scale.grad)
