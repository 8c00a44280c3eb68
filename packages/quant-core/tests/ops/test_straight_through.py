"""Straight-through estimators: the forward of the step, the gradient that the docstring states."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from quant_core import ops

X = [-2.5, -1.0, -0.3, 0.0, 0.5, 1.7]
FORWARDS: list[tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = [
    (ops.round_ste, torch.round),
    (ops.floor_ste, torch.floor),
    (ops.ceil_ste, torch.ceil),
    (ops.round_to_zero_ste, torch.trunc),
    (ops.round_half_up_ste, lambda x: torch.floor(x + 0.5)),
    (ops.ternary_sign_ste, torch.sign),
    (ops.binary_sign_ste, lambda x: torch.where(x >= 0, 1.0, -1.0)),
    (lambda x: ops.clamp_ste(x, -1.0, 1.0), lambda x: x.clamp(-1, 1)),
    (lambda x: ops.clamp_ste(x, torch.tensor(-1.0), torch.tensor(1.0)), lambda x: x.clamp(-1, 1)),
    (lambda x: ops.clamp_min_ste(x, 0.1), lambda x: x.clamp(min=0.1)),
]


@pytest.mark.parametrize(("ste", "step"), FORWARDS)
def test_forward_is_the_step_and_backward_the_identity(
    ste: Callable[[Tensor], Tensor], step: Callable[[Tensor], Tensor]
) -> None:
    x = torch.tensor(X, requires_grad=True)
    y = ste(x)
    assert torch.equal(y, step(x.detach()))
    incoming = torch.arange(1.0, 7.0)
    y.backward(incoming)
    assert torch.equal(x.grad, incoming)


def test_the_bounds_of_clamp_ste_get_no_gradient() -> None:
    x, high = torch.tensor(X, requires_grad=True), torch.tensor(1.0, requires_grad=True)
    ops.clamp_ste(x, -1.0, high).sum().backward()
    assert high.grad is None


def test_tensor_clamp_has_the_true_gradient() -> None:
    x = torch.tensor(X, requires_grad=True)
    low, high = torch.tensor(-1.0, requires_grad=True), torch.tensor(0.5, requires_grad=True)
    ops.tensor_clamp(x, low, high).backward(torch.arange(1.0, 7.0))
    assert x.grad.tolist() == [0, 2, 3, 4, 5, 0]
    assert (low.grad.item(), high.grad.item()) == (1, 6)


def test_the_gradient_of_the_absolute_value_is_plus_one_at_zero() -> None:
    x = torch.tensor([-2.0, 0.0, 3.0], requires_grad=True)
    y = ops.abs_binary_sign_grad(x)
    y.sum().backward()
    assert y.tolist() == [2, 0, 3]
    assert x.grad.tolist() == [-1, 1, 1]


@pytest.mark.parametrize("name", ["round_ste", "binary_sign_ste", "ternary_sign_ste", "abs_binary_sign_grad"])
def test_compiled_equals_eager(name: str) -> None:
    function = getattr(ops, name)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    results = []
    for call in (function, compiled):
        x = torch.tensor(X, requires_grad=True)
        y = call(x)
        y.backward(torch.arange(1.0, 7.0))
        results.append((y.detach(), x.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
