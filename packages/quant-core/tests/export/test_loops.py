"""Loops over a time axis of varying length: one step in the program, run as often as the input says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from quant_core.errors import UnsupportedError
from quant_core.export import Program, capture, check
from quant_core.export.loops import loops_of
from quant_core.ops.loop import loop_input, loop_last, loop_outputs, loop_state


class Sums(nn.Module):
    """Running sums, and running sums of these: two states that start from one tensor."""

    def __init__(self, reverse: bool) -> None:
        super().__init__()
        self.reverse = reverse
        self.register_buffer("factor", torch.tensor(2.0))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        doubled = x * self.factor
        start = torch.zeros_like(x[0])
        now = loop_input(doubled, reverse=self.reverse)
        first, second = (loop_state(start, now, number) for number in range(2))
        after = first + now
        further = second + after
        carried = [after, further], [first, second]
        return loop_outputs(further, now, doubled, *carried), loop_last(*carried, 0), loop_last(*carried, 1)


class Twice(nn.Module):
    """One loop behind another."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Sums(False), Sums(True)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x)[0])[0]


def program_of(model: nn.Module) -> Program:
    return capture(model, (torch.ones(3, 2),), dynamic_shapes=({0: Dim.DYNAMIC},))


def sums(x: Tensor, reverse: bool) -> Tensor:
    once = (2 * (x.flip(0) if reverse else x)).cumsum(0).cumsum(0)
    return once.flip(0) if reverse else once


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 3, 8])
def test_a_program_runs_the_loop_for_any_length(reverse: bool, length: int) -> None:
    x = torch.randn(length, 2)
    outputs, plain, twice = program_of(Sums(reverse)).run(x)
    torch.testing.assert_close(outputs, sums(x, reverse))
    torch.testing.assert_close(plain, 2 * x.sum(0))
    assert torch.equal(twice, outputs[0 if reverse else -1])


def test_a_loop_may_follow_another() -> None:
    program = program_of(Twice())
    x = torch.randn(5, 2)
    torch.testing.assert_close(program.run(x), sums(sums(x, False), True))
    first, second = loops_of(program.graph)
    assert (first.reverse, second.reverse) == (False, True)
    assert [node.target for node in second.body] == [torch.ops.aten.add.Tensor] * 2


def test_a_target_of_fixed_lengths_says_what_to_do() -> None:
    program = program_of(Twice())
    with pytest.raises(UnsupportedError) as caught:
        check(program, "integers").raise_if_refused()
    first, second = (one for one in caught.value.refusals if one.op == "a loop over time")
    assert first.where.startswith("first (")
    assert (first.actual, first.constraint, first.fix) == (
        "a varying number of steps",
        "integers takes sequences of one length",
        "Leave the time axis out of dynamic_shapes: the loop is unrolled for the length of the example.",
    )
    assert second.where.startswith("second")


def test_a_step_alone_computes_nothing() -> None:
    with pytest.raises(RuntimeError, match="cannot be computed by itself"):
        Sums(False)(torch.ones(3, 2))
