"""Values that are taken apart: a program computes what the model does, part by part where they are quantized."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from quant_core.export import Program, capture, grids
from quant_core.proxies import ActQuantProxyFromInjector
from quant_core.quant import Int8ActPerTensorFloat

_SEVERAL = ("chunk", "split", "split_with_sizes", "tensor_split", "unbind")


class Apart(nn.Module):
    """A function of values on a grid."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.act_quant = ActQuantProxyFromInjector(self, Int8ActPerTensorFloat)
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(self.act_quant(x).value)


def calls(program: Program) -> list[str]:
    ops = [node.target for node in program.graph.nodes if isinstance(node.target, torch._ops.OpOverload)]
    return [op._schema.name.removeprefix("aten::") for op in ops if op.namespace == "aten"]


def captured(function: Callable[[Tensor], Any], x: Tensor, **options: Any) -> Program:
    """The program, which gives to the bit what the model gives."""
    model = Apart(function).train()
    model(x)
    model.eval()
    program = capture(model, (x,), **options)
    for expected, found in zip(model(x), program.run(x), strict=True):
        assert torch.equal(expected, found)
        assert expected.stride() == found.stride()
    return program


@given(st.data())
@settings(max_examples=12, deadline=None)
def test_each_part_is_an_operation_of_its_own_on_the_grid(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(2, 5), min_size=1, max_size=3))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    size = shape[axis]
    first = data.draw(st.integers(0, size))
    ways: dict[str, Callable[[Tensor], Any]] = {
        "chunk": lambda x: x.chunk(2, dim=axis),
        "split": lambda x: x.split(2, dim=axis),
        "sizes": lambda x: x.split([first, size - first], dim=axis),
        "sections": lambda x: x.tensor_split(2, dim=axis),
        "indices": lambda x: x.tensor_split([first], dim=axis),
        "unbind": lambda x: x.unbind(axis),
        "last": lambda x: [x.chunk(2, dim=axis)[-1]],
        "twice": lambda x: [part for half in x.chunk(2, dim=axis) for part in half.split(1, dim=axis)],
        "joined": lambda x: [half.relu() for half in torch.cat(x.split(1, dim=axis), axis).chunk(2, dim=axis)],
    }
    program = captured(ways[data.draw(st.sampled_from(sorted(ways)))], torch.randn(shape))
    assert not set(_SEVERAL) & set(calls(program))
    assert all(node.name in grids(program) for node in program.graph.output_node().all_input_nodes)


def test_a_part_has_the_name_and_the_place_of_what_it_is_a_part_of() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Apart(lambda x: x.chunk(2, 1))

        def forward(self, x: Tensor) -> Any:
            return self.inner(x)

    program = capture(Block().eval(), (torch.ones(2, 4),))
    parts = program.graph.output_node().all_input_nodes
    assert [part.name for part in parts] == ["inner_chunk_0", "inner_chunk_1"]
    assert {program.where(part).path for part in parts} == {"inner"}


def test_a_part_that_nothing_uses_is_left_out() -> None:
    assert calls(captured(lambda x: [x.chunk(3, 1)[1]], torch.randn(2, 6))).count("slice") == 1


def test_floats_are_taken_apart_as_the_model_does_it() -> None:
    assert "chunk" in calls(captured(lambda x: x.sigmoid().chunk(2, 1), torch.randn(2, 4)))


@pytest.mark.parametrize(("axis", "op"), [(0, "chunk"), (1, "slice")])
def test_parts_of_a_varying_axis_stay_together(axis: int, op: str) -> None:
    program = captured(lambda x: x.chunk(2, axis), torch.randn(4, 6), dynamic_shapes="batch")
    assert op in calls(program)
