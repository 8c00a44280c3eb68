"""Operations in place: a captured program computes what the model does, and has none where nothing else reads the memory."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from quant_core.export import Program, capture, check
from quant_core.plugins import Registry


class Layer(nn.Module):
    """A function of the result of a linear layer and of its input."""

    def __init__(self, function: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(self.linear(x), x)


def rectified(y: Tensor, x: Tensor) -> Tensor:
    F.relu(y, inplace=True)
    return y


def residual(y: Tensor, x: Tensor) -> Tensor:
    y += x
    y.mul_(2).sigmoid_()
    return F.silu(y, inplace=True)


def of_a_view(y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    rows = y.view(-1)
    rows.relu_()
    return rows, rows + 1


def of_the_input(y: Tensor, x: Tensor) -> Tensor:
    return x.add_(1) * y


def of_a_constant(y: Tensor, x: Tensor) -> Tensor:
    return torch.zeros(2, 4).add_(y)


def masked(y: Tensor, x: Tensor) -> Tensor:
    return y.masked_fill_(x > 0, 0.5)


def seen_through_a_view(y: Tensor, x: Tensor) -> Tensor:
    rows = y.view(-1)
    F.relu_(y)
    return rows


def seen_through_the_base(y: Tensor, x: Tensor) -> Tensor:
    y.flatten().relu_()
    return y


def seen_through_dropout(y: Tensor, x: Tensor) -> Tensor:
    F.relu_(F.dropout(y, training=False))
    return y


def a_row(y: Tensor, x: Tensor) -> Tensor:
    y[0] = 1.0
    return y


def rounded(y: Tensor, x: Tensor) -> Tensor:
    """The sum has the dtype of the operand, and as a new value would have another one."""
    return y.to(torch.float16).add_(x)


def calls(program: Program) -> list[str]:
    ops = [node.target for node in program.graph.nodes if isinstance(node.target, torch._ops.OpOverload)]
    return [op._schema.name.removeprefix("aten::") for op in ops]


def captured(function: Callable[[Tensor, Tensor], Any]) -> Program:
    """The program, which gives to the bit what the model gives."""
    torch.manual_seed(0)
    model, x = Layer(function).eval(), torch.randn(2, 4)
    program = capture(model, (x.clone(),))
    expected, found = model(x.clone()), program.run(x.clone())
    assert all(pytree.tree_leaves(pytree.tree_map(torch.equal, expected, found)))
    return program


@pytest.mark.parametrize("function", [rectified, residual, of_a_view, of_the_input, of_a_constant, masked])
def test_a_value_that_nothing_else_reads_is_a_new_one(function: Callable[[Tensor, Tensor], Any]) -> None:
    assert [name for name in calls(captured(function)) if name.endswith("_")] == []


@pytest.mark.parametrize("function", [seen_through_a_view, seen_through_the_base, seen_through_dropout, a_row, rounded])
def test_what_is_read_elsewhere_stays_in_place(function: Callable[[Tensor, Tensor], Any]) -> None:
    assert [name for name in calls(captured(function)) if name.endswith("_")] != []


def test_a_target_that_takes_new_values_only_says_so(plugins: Registry) -> None:
    report = check(captured(seen_through_a_view), "strict", plugins=plugins)
    (refusal,) = [one for one in report.refusals if one.op == "aten.relu_.default"]
    assert str(refusal) == (
        "aten.relu_.default with a value that is changed in place and used elsewhere\n"
        f"  at the model ({Layer.__module__}.Layer)\n"
        "  strict takes operations that give new values\n"
        "  Use the operation that gives a new value (inplace=False), or a copy of the operand: x.clone()."
    )
