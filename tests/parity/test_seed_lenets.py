"""Whole networks against Brevitas: LeNet-5 in its variants, trained side by side from the same weights."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import brevitas.nn as bnn
import brevitas.quant as bq
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import quant_core.quant as q
import quant_nn as qnn
from quant_core.checkpoints import from_brevitas

STEPS = 4


class LeNet(nn.Module):
    """The five layers with given options, and what stands before each: an activation, or nothing."""

    def __init__(
        self, library: ModuleType, entry: Any, relu: Any, layer: dict[str, Any], last: dict[str, Any], **first: Any
    ) -> None:
        super().__init__()
        self.entry = entry()
        self.conv1 = library.QuantConv2d(3, 6, 5, **layer, **first)
        self.conv2 = library.QuantConv2d(6, 16, 5, **layer)
        self.fc1 = library.QuantLinear(256, 120, bias=True, **layer)
        self.fc2 = library.QuantLinear(120, 84, bias=True, **layer)
        self.fc3 = library.QuantLinear(84, 10, bias=False, **last)
        self.relu1, self.relu2, self.relu3, self.relu4 = relu(), relu(), relu(), relu()

    def forward(self, x: Tensor) -> Tensor:
        out = F.max_pool2d(self.relu1(self.conv1(self.entry(x))), 2)
        out = F.max_pool2d(self.relu2(self.conv2(out)), 2)
        out = self.relu3(self.fc1(out.reshape(out.shape[0], -1)))
        found: Tensor = self.fc3(self.relu4(self.fc2(out)))
        return found


def weights_of_3_bits(library: Any, presets: Any) -> LeNet:
    return LeNet(library, nn.Identity, nn.ReLU, {"weight_bit_width": 3}, {"weight_bit_width": 3})


def low_precision(library: Any, presets: Any) -> LeNet:
    def entry() -> nn.Module:
        return library.QuantIdentity(bit_width=4, collect_stats_steps=2, return_quant_tensor=True)

    def relu() -> nn.Module:
        return library.QuantReLU(bit_width=4, collect_stats_steps=2, return_quant_tensor=True)

    layer = {"weight_bit_width": 3, "bias_quant": presets.Int8Bias, "return_quant_tensor": True}
    return LeNet(library, entry, relu, layer, {"weight_bit_width": 3})


def for_the_dpu(library: Any, presets: Any) -> LeNet:
    activation = presets.Int8ActPerTensorFixedPoint.let(collect_stats_steps=2)
    weight = presets.Int8WeightPerTensorFixedPoint
    layer = {
        "weight_quant": weight,
        "output_quant": activation,
        "bias_quant": presets.Int8BiasPerTensorFixedPointInternalScaling,
        "return_quant_tensor": True,
    }
    last = {"weight_quant": weight, "output_quant": activation}
    return LeNet(library, nn.Identity, nn.ReLU, layer, last, input_quant=activation)


def train(net: nn.Module) -> list[float]:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.02)
    data = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(STEPS):
        images = torch.rand(8, 3, 28, 28, generator=data)
        optimizer.zero_grad()
        loss = F.cross_entropy(net(images), torch.arange(8))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("make", [weights_of_3_bits, low_precision, for_the_dpu])
def test_a_network_trains_as_in_brevitas_and_takes_its_checkpoint(make: Any) -> None:
    torch.manual_seed(0)
    theirs = make(bnn, bq)
    ours = make(qnn, q)
    ours.load_state_dict({key: tensor for key, tensor in theirs.state_dict().items() if "quant" not in key})
    assert train(ours) == pytest.approx(train(theirs), rel=1e-3)
    ours.load_state_dict(from_brevitas(theirs.state_dict(), ours))
    x = torch.rand(4, 3, 28, 28)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))
