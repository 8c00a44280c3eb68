"""From a program to a plan, with nothing but the operators of this package."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from quant_core.errors import InputError
from quant_core.export import capture, check, lower, verify
from quant_core.integers import IntegerArtifact
from quant_core.ops import quantize_binary, quantize_int, quantize_ternary


class Net(nn.Module):
    """Two layers; scales are powers of two, so that float32 is exact."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = nn.Parameter(torch.randn(5, 6, generator=generator))
        self.bias = nn.Parameter(torch.randn(5, generator=generator))
        self.second = nn.Parameter(torch.randn(3, 5, generator=generator))
        self.register_buffer("eighth", torch.tensor(0.125))
        self.register_buffer("quarter", torch.tensor(0.25))

    def forward(self, x: Tensor) -> Tensor:
        x = quantize_int(x, self.eighth, 0, 6, signed=True)
        weight = quantize_int(self.first, self.quarter, 0, 4, signed=True, narrow_range=True)
        bias = quantize_int(self.bias, self.eighth * self.quarter, 0, 16, signed=True)
        x = torch.relu(nn.functional.linear(x, weight, bias))
        x = quantize_int(x, self.quarter, torch.tensor(3.0), 5, signed=False)
        return nn.functional.linear(x, quantize_int(self.second, self.eighth, 0, 5, signed=True))


@pytest.fixture
def x() -> Tensor:
    return torch.randn(40, 6, generator=torch.Generator().manual_seed(1))


def lowered(net: nn.Module, x: Tensor) -> IntegerArtifact:
    artifact = lower(capture(net, (x,)), "integers")
    assert isinstance(artifact, IntegerArtifact)
    return artifact


def test_it_is_equal_to_the_bit(x: Tensor) -> None:
    net = Net()
    artifact = lowered(net, x)
    assert torch.equal(artifact.run(x), net(x))
    assert artifact.program is not None
    assert verify(artifact.program, artifact, (x,)).equal


def test_the_steps_and_their_ranges(x: Tensor) -> None:
    steps = lowered(Net(), x).network.plan.steps
    assert [step.op for step in steps] == ["quantize", "aten.linear.default", "rescale", "aten.linear.default"]
    assert [(step.result["bits"], step.result["signed"]) for step in steps][::2] == [(6, True), (5, False)]
    assert steps[2].arguments["low"] == 3  # the rectifier: the level that stands for 0
    assert steps[3].arguments["zero_points"].keys() == {"input"}


def test_ranges_hold_what_is_computed(x: Tensor) -> None:
    artifact = lowered(Net(), x)
    found = artifact.integers(1000 * x)  # everything saturates
    for step in artifact.network.plan.steps:
        assert step.result["low"] <= int(found[step.name].min())
        assert int(found[step.name].max()) <= step.result["high"]


@pytest.mark.parametrize("signs", ["binary", "ternary"])
def test_few_levels_of_sums(signs: str, x: Tensor) -> None:
    class Signs(Net):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x) - quantize_int(x[:, :3], self.eighth, 0, 6, signed=True)
            return quantize_binary(y, self.quarter) if signs == "binary" else quantize_ternary(y, self.quarter, 0.5)

    assert torch.equal(lowered(Signs(), x).run(x), Signs()(x))


def test_a_float_weight_is_refused(x: Tensor) -> None:
    class Mixed(Net):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(super().forward(x), self.second.t())

    report = check(capture(Mixed(), (x,)), "integers")
    assert [refusal.actual for refusal in report.refusals] == ["a float weight"]


def test_inputs_of_another_structure(x: Tensor) -> None:
    with pytest.raises(InputError):
        lowered(Net(), x).run(x, x)
