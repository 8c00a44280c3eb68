"""Budgets in training: digits are learned while bits come down to where they shall be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import quant_nn as qnn
from quant_nn.cost import Budget
from quant_nn.report import summary

ACCURACY = 0.94
"""Of images that were not trained on; the same network with 8 bits reaches 0.96."""


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    found = load_digits()
    order = torch.randperm(len(found.data), generator=torch.Generator().manual_seed(0))
    return torch.tensor(found.data, dtype=torch.float32)[order] / 16, torch.tensor(found.target)[order]


def network(bits: int = 8) -> nn.Sequential:
    """Four layers that all learn the bits of their weights, and three activations."""
    weight: dict[str, Any] = {"weight_bit_width": bits, "weight_bit_width_impl_type": "parameter"}
    act: dict[str, Any] = {"bit_width": bits, "bit_width_impl_type": "parameter", "collect_stats_steps": 20}
    return nn.Sequential(
        qnn.QuantIdentity(bit_width=8, collect_stats_steps=20),
        qnn.QuantLinear(64, 48, **weight),
        qnn.QuantReLU(**act),
        qnn.QuantLinear(48, 48, **weight),
        qnn.QuantReLU(**act),
        qnn.QuantLinear(48, 48, **weight),
        qnn.QuantReLU(**act),
        qnn.QuantLinear(48, 10, **weight),
    )


def train(net: nn.Module, budget: Budget, x: Tensor, labels: Tensor) -> None:
    """A short training, in which bits have a learning rate of their own."""
    bits = [parameter for name, parameter in net.named_parameters() if "bit_width" in name]
    others = [parameter for name, parameter in net.named_parameters() if "bit_width" not in name]
    optimizer = torch.optim.Adam([{"params": others, "lr": 0.004}, {"params": bits, "lr": 0.05}])
    generator = torch.Generator().manual_seed(0)
    for _ in range(12):
        for part in torch.randperm(len(x), generator=generator).split(64):
            optimizer.zero_grad()
            (F.cross_entropy(net(x[part]), labels[part]) + budget()).backward()
            optimizer.step()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_mean_bits_of_weights_are_reached(seed: int, digits: tuple[Tensor, Tensor]) -> None:
    x, labels = digits
    torch.manual_seed(seed)
    net = network()
    budget = Budget(net, weight_bits=4)
    train(net, budget, x[:1300], labels[:1300])
    reached = budget.present().weight_bits
    assert reached is not None
    assert abs(reached - 4) <= 0.25
    assert accuracy(net, x[1300:], labels[1300:]) >= ACCURACY


def test_several_targets_at_once(digits: tuple[Tensor, Tensor]) -> None:
    x, labels = digits
    torch.manual_seed(1)
    net = network()
    budget = Budget(net, x[:1], activation_bits=5, weight_bits=4)
    train(net, budget, x[:1300], labels[:1300])
    present = budget.present()
    assert present.activation_bits is not None
    assert present.weight_bits is not None
    assert abs(present.activation_bits - 5) <= 0.25
    assert abs(present.weight_bits - 4) <= 0.25
    assert accuracy(net, x[1300:], labels[1300:]) >= ACCURACY


@pytest.mark.parametrize("seed", [0, 1])
def test_an_exact_budget_is_reached_from_below(seed: int, digits: tuple[Tensor, Tensor]) -> None:
    x, labels = digits
    torch.manual_seed(seed)
    net = network(bits=2)
    budget = Budget(net, weight_bits=5, exact=True)
    train(net, budget, x[:1300], labels[:1300])
    reached = budget.present().weight_bits
    assert reached is not None
    assert abs(reached - 5) <= 0.25
    assert accuracy(net, x[1300:], labels[1300:]) >= ACCURACY


def test_bytes_are_reached(digits: tuple[Tensor, Tensor]) -> None:
    """A quarter of a bit for each of the 8160 weights is the tolerance."""
    x, labels = digits
    torch.manual_seed(3)
    net, count = network(), 64 * 48 + 2 * 48 * 48 + 48 * 10
    budget = Budget(net, bytes=count * 3 / 8)
    train(net, budget, x[:1300], labels[:1300])
    reached = budget.present().bytes
    assert reached is not None
    assert abs(reached * 8 / count - 3) <= 0.25
    assert accuracy(net, x[1300:], labels[1300:]) >= ACCURACY


def test_bit_operations_are_reached(digits: tuple[Tensor, Tensor]) -> None:
    """Three tenths of those of 8 bits: operands of 4.4 bits, if all had the same; counted again by the report."""
    x, labels = digits
    torch.manual_seed(2)
    net = network()
    before = summary(net, x[:1])
    budget = Budget(net, x[:1], bit_operations=0.3 * before.total("bops"), strength=2.0)
    train(net, budget, x[:1300], labels[:1300])
    reached = (summary(net, x[:1]).total("bops") / before.total("macs")) ** 0.5
    assert abs(reached - (0.3 * 64) ** 0.5) <= 0.25
    assert budget.met(tolerance=0.02)
    assert accuracy(net, x[1300:], labels[1300:]) >= ACCURACY


def accuracy(net: nn.Module, x: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return float((net.eval()(x).argmax(1) == labels).float().mean())
