"""The dialect ops: what they compute, that torch accepts them, and that their gradient is the eager one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_core import ops

X = torch.tensor([[-3.0, -0.4, 0.0], [0.2, 0.6, 5.0]], dtype=torch.float64)
SCALE = torch.tensor(0.5, dtype=torch.float64)
ZERO = torch.tensor(0.0, dtype=torch.float64)
CALLS = {
    "int": ((X, SCALE, ZERO, torch.tensor(4.0)), {"signed": True, "narrow_range": False, "rounding_mode": "ROUND"}),
    "binary": ((X, SCALE), {}),
    "ternary": ((X, SCALE), {"threshold": 0.5}),
    "trunc": (
        (X, SCALE, ZERO, SCALE * 4, torch.tensor(3.0, dtype=torch.float64)),
        {"signed": True, "narrow_range": False, "rounding_mode": "FLOOR"},
    ),
    "dequantize": (
        (torch.tensor([3, -4], dtype=torch.int8), SCALE, ZERO),
        {"bit_width": 4.0, "signed": True, "narrow_range": False, "dtype": torch.float32},
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_torch_accepts_the_op(name: str) -> None:
    args, kwargs = CALLS[name]
    op = getattr(torch.ops.quant, name).default
    torch.library.opcheck(op, args, kwargs, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize("name", ["int", "binary", "ternary", "trunc"])
def test_half_precision_in_half_precision_out(name: str) -> None:
    args, kwargs = CALLS[name]
    scale = torch.tensor([0.5, 0.25, 0.5])
    rest = [arg.float() for arg in args[2:]]
    op = getattr(torch.ops.quant, name).default
    half = (args[0].half(), scale, *rest)
    torch.library.opcheck(op, half, kwargs, test_utils=("test_schema", "test_faketensor"))
    assert torch.equal(op(*half, **kwargs), op(args[0].float(), scale, *rest, **kwargs).half())


@pytest.mark.parametrize("name", ["binary", "ternary", "trunc"])
def test_the_op_equals_its_eager_spelling_in_value_and_gradient(name: str) -> None:
    args, kwargs = CALLS[name]
    eager = getattr(ops, f"quantize_{name}")
    results = []
    for function in (getattr(torch.ops.quant, name), eager):
        leaves = [arg.clone().requires_grad_(index < 2) for index, arg in enumerate(args)]
        y = function(*leaves, **kwargs)
        y.backward(torch.arange(6, dtype=y.dtype).view_as(y))
        results.append((y.detach(), leaves[0].grad, leaves[1].grad))
    for found, wanted in zip(*results, strict=True):
        assert (found is None and wanted is None) or torch.equal(found, wanted)


@pytest.mark.parametrize("name", ["binary", "ternary", "trunc"])
def test_the_eager_spelling_is_captured_as_the_op(name: str) -> None:
    args, kwargs = CALLS[name]
    eager = getattr(ops, f"quantize_{name}")

    class Net(torch.nn.Module):
        def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
            return eager(*tensors, **kwargs)

    exported = torch.export.export(Net(), args, strict=False)
    targets = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
    assert f"quant.{name}.default" in targets
    assert torch.equal(exported.module()(*args), eager(*args, **kwargs))


def test_binary_of_zero_is_positive() -> None:
    assert ops.quantize_binary(torch.tensor([-0.1, 0.0]), torch.tensor(2.0)).tolist() == [-2, 2]


def test_ternary_is_zero_up_to_the_threshold() -> None:
    x = torch.tensor([-0.6, -0.5, 0.0, 0.5, 0.6])
    assert ops.quantize_ternary(x, torch.tensor(1.0), 0.5).tolist() == [-1, 0, 0, 0, 1]


@settings(deadline=None)
@given(st.integers(-128, 127), st.integers(0, 4))
def test_trunc_with_floor_is_an_arithmetic_shift(integer: int, dropped: int) -> None:
    y = ops.quantize_trunc(
        torch.tensor(float(integer)),
        torch.tensor(1.0),
        torch.tensor(0.0),
        torch.tensor(2.0**dropped),
        torch.tensor(8.0),
        signed=True,
    )
    assert y.item() == (integer >> dropped) * 2**dropped


def test_trunc_clamps_to_the_output_range() -> None:
    grid = torch.tensor(1.0), torch.tensor(0.0), torch.tensor(2.0), torch.tensor(3.0)
    y = ops.quantize_trunc(torch.tensor([100.0, -100.0]), *grid, signed=True)
    assert y.tolist() == [6, -8]
