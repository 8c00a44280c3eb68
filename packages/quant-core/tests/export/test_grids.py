"""Which operations leave values on their grid."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quant_core.export import capture, grids

KEEP: dict[str, Callable[[Tensor], Tensor]] = {
    "padding with zeros": lambda x: F.pad(x, (1, 2, 0, 1)),
    "padding with values from inside": lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "repeating neighbours": lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest"),
    "repeating to a size": lambda x: F.interpolate(x, size=(7, 9), mode="nearest"),
    "shuffling pixels": lambda x: F.pixel_shuffle(x, 2),
    "unshuffling pixels": lambda x: F.pixel_unshuffle(x, 2),
}
LOSE: dict[str, Callable[[Tensor], Tensor]] = {
    "padding with another number": lambda x: F.pad(x, (1, 2, 0, 1), value=0.3),
    "blending neighbours": lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"),
    "averaging": lambda x: F.avg_pool2d(x, 2),
}


class After(nn.Module):
    """An operation after a quantizer."""

    def __init__(self, activation: nn.Module, operation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.activation = activation
        self.operation = operation

    def forward(self, x: Tensor) -> Tensor:
        return self.operation(self.activation(x).value)


def last_is_on_a_grid(operation: Callable[[Tensor], Tensor], activation: Callable[..., nn.Module]) -> bool:
    net, x = After(activation(), operation), torch.randn(1, 4, 6, 6)
    net(x)
    program = capture(net, (x,))
    return program.outputs[0].name in grids(program)


@pytest.mark.parametrize("operation", KEEP.values(), ids=KEEP.keys())
def test_these_operations_keep_it(
    operation: Callable[[Tensor], Tensor], parts: dict[str, Callable[..., nn.Module]]
) -> None:
    assert last_is_on_a_grid(operation, parts["activation"])


@pytest.mark.parametrize("operation", LOSE.values(), ids=LOSE.keys())
def test_these_operations_lose_it(
    operation: Callable[[Tensor], Tensor], parts: dict[str, Callable[..., nn.Module]]
) -> None:
    assert not last_is_on_a_grid(operation, parts["activation"])
