"""Average pools of every form compute in the file what they compute in the model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import quant_nn as qnn
from quant_core.errors import UnsupportedError
from quant_core.export import capture, lower

POOLS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "a divisor": (nn.AvgPool2d(2, divisor_override=3), (2, 3, 6, 8)),
    "a divisor below zero": (nn.AvgPool2d(2, divisor_override=-4), (2, 3, 6, 8)),
    "a divisor and zeros": (nn.AvgPool2d((3, 2), (2, 1), 1, divisor_override=5), (2, 3, 7, 8)),
    "a divisor in place of the zeros": (nn.AvgPool2d(3, 2, 1, False, False, divisor_override=5), (2, 3, 7, 8)),
    "a divisor beyond the edge": (nn.AvgPool2d((3, 4), (2, 3), 1, ceil_mode=True, divisor_override=5), (2, 3, 6, 9)),
    "a divisor without batch": (nn.AvgPool2d(2, divisor_override=3), (3, 6, 8)),
    "a divisor in three dimensions": (nn.AvgPool3d(2, 1, 1, ceil_mode=True, divisor_override=3), (1, 2, 4, 5, 6)),
    "no divisor beyond the edge": (nn.AvgPool2d(3, 2, 1, ceil_mode=True), (2, 3, 6, 8)),
    "only what is there": (nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False), (2, 3, 6, 8)),
}
ENTRY: dict[str, Any] = {"bit_width": 4, "min_val": -2.0, "max_val": 2.0}


@pytest.mark.parametrize("name", POOLS)
def test_the_file_divides_as_the_model_does(name: str) -> None:
    pool, shape = POOLS[name]
    net = nn.Sequential(qnn.QuantIdentity(**ENTRY), pool).eval()
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = lower(capture(net, (x,)), "qcdq").run(x)
    assert torch.allclose(torch.as_tensor(found), net(x), atol=1e-6)


def test_windows_beyond_an_edge_that_varies_are_refused_with_a_divisor() -> None:
    net = nn.Sequential(qnn.QuantIdentity(**ENTRY), nn.AvgPool2d(3, 2, ceil_mode=True, divisor_override=5)).eval()
    x, half = torch.randn(2, 3, 8, 8), torch.export.Dim("half", min=3, max=32)
    program = capture(net, (x,), dynamic_shapes=({2: 2 * half},))
    with pytest.raises(UnsupportedError) as refused:
        lower(program, "qcdq")
    assert str(refused.value) == (
        "target 'qcdq' cannot lower aten.avg_pool2d.default with divisor_override and ceil_mode\n"
        "  at 1 (torch.nn.AvgPool2d)\n"
        "  the size of its input varies, and with it how many zeros the last windows hold\n"
        "  Leave ceil_mode out, or export for a fixed size."
    )
