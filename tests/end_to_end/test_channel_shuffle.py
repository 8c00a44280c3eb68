"""Units of ShuffleNet, which take their channels apart, join them and shuffle them: on every target that takes slices."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.export import capture, check, compare, lower


class Unit(nn.Module):
    """Half of the channels pass, the others go through convolutions; both are on one grid when they are shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            qnn.QuantConv2d(half, half, 1, bias=False),
            qnn.QuantReLU(),
            qnn.QuantConv2d(half, half, 3, padding=1, groups=half, bias=False),
        )
        self.out = qnn.QuantIdentity()

    def forward(self, x: Tensor) -> Tensor:
        kept, worked = x.chunk(2, dim=1)
        joined = torch.cat([self.out(kept), self.out(self.branch(worked))], 1)
        return joined.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    units = nn.Sequential(qnn.QuantIdentity(), Unit(4), Unit(4), qnn.QuantConv2d(4, 3, 1, bias=False)).train()
    for _ in range(3):
        units(torch.randn(4, 4, 5, 5))
    return units.eval()


@pytest.mark.parametrize("target", ["qcdq", "qonnx", "finn", "integers", "torchq", "pt2e"])
def test_shuffled_channels_equal_the_model(net: nn.Module, target: str) -> None:
    x = torch.randn(2, 4, 5, 5)
    program = capture(net, (x,))
    verification = compare(net, program, lower(program, target), (x,))
    assert verification.equal, str(verification)
    assert verification.compared >= 7


def test_shuffled_channels_stay_integers_in_finn(net: nn.Module) -> None:
    report = check(capture(net, (torch.randn(2, 4, 5, 5),)), "finn")
    assert report.ok
    assert report.notes == ()
