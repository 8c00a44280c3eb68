"""Which quantizer a value is rounded by."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quant_core.export import capture, landings
from quant_core.ops import quantize_int


def to_grid(x: Tensor, scale: float = 0.25, mode: str = "ROUND") -> Tensor:
    return quantize_int(x, torch.tensor(scale), 0, 8, signed=True, rounding_mode=mode)


class Computing(nn.Module):
    def __init__(self, operation: Callable[[Tensor], Tensor | tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.operation = operation

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.operation(x * 3)


def found(operation: Callable[[Tensor], Tensor | tuple[Tensor, ...]]) -> dict[str, float]:
    """The scale that each node comes to."""
    program = capture(Computing(operation), (torch.randn(1, 4, 6, 6),))
    return {
        name: float(quantizer.scale) for name, quantizer in landings(program).items() if quantizer.scale is not None
    }


BETWEEN: dict[str, Callable[[Tensor], Tensor]] = {
    "nothing": lambda x: x,
    "a relu": torch.relu,
    "a max pool": lambda x: F.max_pool2d(x, 3, 2, 1),
    "a reshape": lambda x: torch.flatten(x, 1),
    "zeros around": lambda x: F.pad(x, (1, 2, 0, 1)),
    "both operands of a concatenation": lambda x: torch.cat([x, torch.relu(x)], 1),
    "several in a row": lambda x: torch.flatten(F.max_pool2d(torch.relu(x), 2), 1),
}


@pytest.mark.parametrize("between", BETWEEN.values(), ids=BETWEEN.keys())
@pytest.mark.parametrize("mode", ["ROUND", "DPU", "FLOOR"])
def test_rounding_before_gives_the_same_as_rounding_after(between: Callable[[Tensor], Tensor], mode: str) -> None:
    assert found(lambda x: to_grid(between(x)))["mul"] == 0.25
    x = torch.randn(2, 4, 6, 6) * 30
    assert torch.equal(to_grid(between(to_grid(x, mode=mode)), mode=mode), to_grid(between(x), mode=mode))


def test_two_quantizers_of_one_grid_are_one() -> None:
    assert found(lambda x: (to_grid(x), to_grid(torch.relu(x))))["mul"] == 0.25


def test_two_grids_are_none() -> None:
    assert "mul" not in found(lambda x: (to_grid(x), to_grid(x, 0.5)))


def test_a_value_that_is_also_used_unrounded_comes_to_nothing() -> None:
    assert "mul" not in found(lambda x: (to_grid(x), x))
    assert "mul" not in found(lambda x: (to_grid(x), torch.relu(x)))
    assert "mul" not in found(lambda x: to_grid(x) + x)


def test_what_does_not_commute_with_rounding_ends_the_way() -> None:
    assert found(lambda x: to_grid(F.avg_pool2d(x, 2))) == {"avg_pool2d": 0.25}
