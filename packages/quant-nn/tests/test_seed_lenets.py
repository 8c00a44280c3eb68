"""The networks that quantization libraries are introduced with, LeNet-5 in its variants, as users wrote them for Brevitas.

Only imports differ. Each is trained for a step, evaluated, and captured for export; what is captured computes the same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.export import capture
from quant_core.inject.enum import QuantType
from quant_core.quant import Int8ActPerTensorFixedPoint as DPUActQuant
from quant_core.quant import Int8Bias as BiasQuant
from quant_core.quant import Int8BiasPerTensorFixedPointInternalScaling as DPUBiasQuant
from quant_core.quant import Int8WeightPerTensorFixedPoint as DPUWeightQuant
from quant_core.quant import Int8WeightPerTensorFloat as SignedWeightQuant
from quant_core.quant import ShiftedUint8ActPerTensorFloat as ActQuant
from quant_core.quant import ShiftedUint8WeightPerTensorFloat as UnsignedWeightQuant


class QuantLeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = qnn.QuantConv2d(3, 6, 5, weight_quant_type=QuantType.INT, weight_bit_width=8)
        self.relu1 = qnn.QuantReLU(quant_type=QuantType.INT, bit_width=8, max_val=6)
        self.conv2 = qnn.QuantConv2d(6, 16, 5, weight_quant_type=QuantType.INT, weight_bit_width=8)
        self.relu2 = qnn.QuantReLU(quant_type=QuantType.INT, bit_width=8, max_val=6)
        self.fc1 = qnn.QuantLinear(16 * 5 * 5, 120, bias=True, weight_quant_type=QuantType.INT, weight_bit_width=8)
        self.relu3 = qnn.QuantReLU(quant_type=QuantType.INT, bit_width=8, max_val=6)
        self.fc2 = qnn.QuantLinear(120, 84, bias=True, weight_quant_type=QuantType.INT, weight_bit_width=8)
        self.relu4 = qnn.QuantReLU(quant_type=QuantType.INT, bit_width=8, max_val=6)
        self.fc3 = qnn.QuantLinear(84, 10, bias=False, weight_quant_type=QuantType.INT, weight_bit_width=8)

    def forward(self, x):
        out = self.relu1(self.conv1(x))
        out = F.max_pool2d(out, 2)
        out = self.relu2(self.conv2(out))
        out = F.max_pool2d(out, 2)
        out = out.view(out.size(0), -1)
        out = self.relu3(self.fc1(out))
        out = self.relu4(self.fc2(out))
        out = self.fc3(out)
        return out


class QuantWeightLeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = qnn.QuantConv2d(3, 6, 5, weight_bit_width=3)
        self.relu1 = nn.ReLU()
        self.conv2 = qnn.QuantConv2d(6, 16, 5, weight_bit_width=3)
        self.relu2 = nn.ReLU()
        self.fc1 = qnn.QuantLinear(16 * 5 * 5, 120, bias=True, weight_bit_width=3)
        self.relu3 = nn.ReLU()
        self.fc2 = qnn.QuantLinear(120, 84, bias=True, weight_bit_width=3)
        self.relu4 = nn.ReLU()
        self.fc3 = qnn.QuantLinear(84, 10, bias=False, weight_bit_width=3)

    def forward(self, x):
        out = self.relu1(self.conv1(x))
        out = F.max_pool2d(out, 2)
        out = self.relu2(self.conv2(out))
        out = F.max_pool2d(out, 2)
        out = out.reshape(out.shape[0], -1)
        out = self.relu3(self.fc1(out))
        out = self.relu4(self.fc2(out))
        out = self.fc3(out)
        return out


class LowPrecisionLeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.quant_inp = qnn.QuantIdentity(bit_width=4, return_quant_tensor=True)
        self.conv1 = qnn.QuantConv2d(3, 6, 5, weight_bit_width=3, bias_quant=BiasQuant, return_quant_tensor=True)
        self.relu1 = qnn.QuantReLU(bit_width=4, return_quant_tensor=True)
        self.conv2 = qnn.QuantConv2d(6, 16, 5, weight_bit_width=3, bias_quant=BiasQuant, return_quant_tensor=True)
        self.relu2 = qnn.QuantReLU(bit_width=4, return_quant_tensor=True)
        self.fc1 = qnn.QuantLinear(
            16 * 5 * 5, 120, bias=True, weight_bit_width=3, bias_quant=BiasQuant, return_quant_tensor=True
        )
        self.relu3 = qnn.QuantReLU(bit_width=4, return_quant_tensor=True)
        self.fc2 = qnn.QuantLinear(
            120, 84, bias=True, weight_bit_width=3, bias_quant=BiasQuant, return_quant_tensor=True
        )
        self.relu4 = qnn.QuantReLU(bit_width=4, return_quant_tensor=True)
        self.fc3 = qnn.QuantLinear(84, 10, bias=False, weight_bit_width=3)

    def forward(self, x):
        out = self.quant_inp(x)
        out = self.relu1(self.conv1(out))
        out = F.max_pool2d(out, 2)
        out = self.relu2(self.conv2(out))
        out = F.max_pool2d(out, 2)
        out = out.reshape(out.shape[0], -1)
        out = self.relu3(self.fc1(out))
        out = self.relu4(self.fc2(out))
        out = self.fc3(out)
        return out


class ReducedRangeActQuant(ActQuant):
    bit_width = 7


class MixedFloatQuantLeNet(nn.Module):
    def __init__(self, bias_quant=True, reduced_act_quant=False, weight_signed=False):
        super().__init__()
        bias_quant = BiasQuant if bias_quant else None
        act_quant = ReducedRangeActQuant if reduced_act_quant else ActQuant
        weight_quant = SignedWeightQuant if weight_signed else UnsignedWeightQuant
        self.conv1 = qnn.QuantConv2d(
            3, 6, 5, input_quant=act_quant, weight_quant=weight_quant,
            output_quant=act_quant, bias_quant=bias_quant, return_quant_tensor=True
        )  # fmt: skip
        self.relu1 = nn.ReLU()
        self.conv2 = qnn.QuantConv2d(
            6, 16, 5, weight_quant=weight_quant, output_quant=act_quant,
            bias_quant=bias_quant, return_quant_tensor=True
        )  # fmt: skip
        self.relu2 = nn.ReLU()
        self.fc1 = qnn.QuantLinear(
            256, 120, bias=True, weight_quant=weight_quant, bias_quant=bias_quant, output_quant=act_quant
        )
        self.relu3 = nn.ReLU()
        self.fc2 = nn.Linear(120, 84, bias=True)
        self.relu4 = nn.ReLU()
        self.fc3 = nn.Linear(84, 10, bias=False)

    def forward(self, x):
        out = self.relu1(self.conv1(x))
        out = F.max_pool2d(out, 2)
        out = self.relu2(self.conv2(out))
        out = F.max_pool2d(out, 2)
        out = out.reshape(out.shape[0], -1)
        out = self.relu3(self.fc1(out))
        out = self.relu4(self.fc2(out))
        out = self.fc3(out)
        return out


class DPULeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = qnn.QuantConv2d(
            3, 6, 5, input_quant=DPUActQuant, weight_quant=DPUWeightQuant,
            output_quant=DPUActQuant, bias_quant=DPUBiasQuant, return_quant_tensor=True
        )  # fmt: skip
        self.relu1 = nn.ReLU()
        self.conv2 = qnn.QuantConv2d(
            6, 16, 5, weight_quant=DPUWeightQuant, output_quant=DPUActQuant,
            bias_quant=DPUBiasQuant, return_quant_tensor=True
        )  # fmt: skip
        self.relu2 = nn.ReLU()
        self.fc1 = qnn.QuantLinear(
            256, 120, bias=True, weight_quant=DPUWeightQuant, bias_quant=DPUBiasQuant,
            output_quant=DPUActQuant, return_quant_tensor=True
        )  # fmt: skip
        self.relu3 = nn.ReLU()
        self.fc2 = qnn.QuantLinear(
            120, 84, bias=True, weight_quant=DPUWeightQuant, bias_quant=DPUBiasQuant,
            output_quant=DPUActQuant, return_quant_tensor=True
        )  # fmt: skip
        self.relu4 = nn.ReLU()
        self.fc3 = qnn.QuantLinear(84, 10, bias=False, weight_quant=DPUWeightQuant, output_quant=DPUActQuant)

    def forward(self, x):
        out = self.relu1(self.conv1(x))
        out = F.max_pool2d(out, 2)
        out = self.relu2(self.conv2(out))
        out = F.max_pool2d(out, 2)
        out = out.reshape(out.shape[0], -1)
        out = self.relu3(self.fc1(out))
        out = self.relu4(self.fc2(out))
        out = self.fc3(out)
        return out


def mixed(bias_quant: bool, reduced_act_quant: bool, weight_signed: bool) -> Any:
    """That network with flags, and the bit widths that it quantizes weights, activations and biases to."""
    bits = {"weight": {8}, "activation": {7 if reduced_act_quant else 8}, **({"bias": {8}} if bias_quant else {})}
    flags = f"bias_quant={bias_quant}, reduced_act_quant={reduced_act_quant}, weight_signed={weight_signed}"
    network = partial(MixedFloatQuantLeNet, bias_quant, reduced_act_quant, weight_signed)
    return pytest.param(network, 28, bits, id=f"mixed with {flags}")


@pytest.mark.parametrize(
    ("make", "size", "bits"),
    [
        pytest.param(QuantLeNet, 32, {"weight": {8}, "activation": {8}}, id="8 bits by words"),
        pytest.param(QuantWeightLeNet, 32, {"weight": {3}}, id="weights of 3 bits"),
        pytest.param(
            LowPrecisionLeNet, 32, {"weight": {3}, "activation": {4}, "bias": {8}}, id="W3A4 and 8-bit biases"
        ),
        pytest.param(DPULeNet, 28, {"weight": {8}, "activation": {8}, "bias": {8}}, id="DPU"),
        *(mixed(*flags) for flags in product((True, False), repeat=3)),
    ],
)
def test_it_trains_evaluates_and_is_captured(
    make: Callable[[], nn.Module], size: int, bits: dict[str, set[float]]
) -> None:
    torch.manual_seed(0)
    network = make()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    images, labels = torch.rand(8, 3, size, size), torch.arange(8)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = F.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(parameter.grad is not None for name, parameter in network.named_parameters() if name.endswith("weight"))
    x = torch.rand(2, 3, size, size)
    out = network.eval()(x)
    assert type(out) is Tensor
    program = capture(network, (x,))
    assert torch.equal(program.run(x), out)
    found: dict[str, set[float | None]] = {}
    for quantizer in program.quantizers:
        found.setdefault(quantizer.role, set()).add(quantizer.bit_width)
    assert found == bits


def test_every_scale_of_the_network_for_the_dpu_is_a_power_of_two() -> None:
    torch.manual_seed(0)
    network = DPULeNet()
    network(torch.rand(8, 3, 28, 28))
    quantizers = capture(network.eval(), (torch.rand(1, 3, 28, 28),)).quantizers
    assert len(quantizers) == 15
    for quantizer in quantizers:
        assert quantizer.scale is not None
        assert bool((torch.frexp(quantizer.scale).mantissa == 0.5).all()), quantizer.name


def test_max_val_is_where_the_scale_of_an_activation_starts() -> None:
    network = QuantLeNet()
    assert network.relu1.act_quant.scale().item() == pytest.approx(6 / 255)
    assert isinstance(network.relu1.act_quant.tensor_quant.scaling_impl.value, nn.Parameter)
