"""How a program is called: what may stand in the place of an input, and which names its modules may have."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from quant_core.errors import InputError
from quant_core.export import Program, capture


class Scaled(nn.Module):
    def forward(self, x: Tensor, *, factor: float = 1.0, word: str = "plain", offset: Tensor | None = None) -> Tensor:
        return x * factor if offset is None else x * factor + offset


@pytest.fixture
def program() -> Program:
    return capture(Scaled(), (torch.ones(2),), {"factor": 3.0, "word": "other", "offset": None})


def test_constants_are_named_and_may_be_given_again(program: Program) -> None:
    assert program.signature.inputs == ("x", "factor", "word", "offset")
    assert program.signature.constants == {"factor": 3.0, "word": "other", "offset": None}
    given: dict[str, Any] = {"word": "other", "offset": None, "factor": 3.0}
    assert program.run(torch.ones(2), **given).tolist() == [3.0, 3.0]


@pytest.mark.parametrize(
    ("changed", "shown", "captured"),
    [
        ({"factor": 4.0}, "'factor' is 4.0", "factor=3.0"),
        ({"word": "plain"}, "'word' is 'plain'", "word='other'"),
        ({"offset": torch.ones(2)}, "'offset' is a tensor of shape (2,)", "offset=None"),
        ({"factor": torch.ones(())}, "'factor' is a tensor of shape ()", "factor=3.0"),
    ],
    ids=lambda case: next(iter(case)) if isinstance(case, dict) else "",
)
def test_a_constant_cannot_be_another_one(changed: dict[str, Any], shown: str, captured: str, program: Program) -> None:
    given: dict[str, Any] = {"factor": 3.0, "word": "other", "offset": None, **changed}
    for call in (program.run, lambda *args, **kwargs: program.signature.flatten(args, kwargs)):
        with pytest.raises(InputError) as caught:
            call(torch.ones(2), **given)
        assert str(caught.value) == (
            f"the input {shown}\n"
            f"  it is a part of the program, which was captured with {captured}\n"
            "  Capture the model with this value, or make it a tensor in the model and in the example inputs."
        )


def test_what_is_no_tensor_does_not_stand_for_one() -> None:
    with pytest.raises(InputError) as caught:
        capture(nn.ReLU(), (torch.ones(2),)).run([1.0, 2.0][0])
    assert str(caught.value) == (
        "the input 'input' is a float\n"
        "  the model was captured with a tensor there\n"
        "  Pass a tensor; torch.as_tensor makes one of numbers and arrays."
    )


@pytest.mark.parametrize("name", ["graph", "code", "meta", "recompile"])
def test_a_module_may_have_the_name_of_an_attribute_of_graph_modules(name: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add_module(name, nn.Linear(2, 3))

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.get_submodule(name)(x)
            return found

    net, x = Net(), torch.randn(4, 2)
    program = capture(net, (x,))
    assert torch.equal(program.run(x), net(x))
    assert sorted(program.exported.state_dict) == [f"{name}_.bias", f"{name}_.weight"]
    assert {
        program.where(node).path
        for node in program.graph.find_nodes(op="call_function", target=torch.ops.aten.linear.default)
    } == {name}
