"""Networks of 8 bits, trained a little on digits, as torch's own integers: every value is that of the model."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.export import check, export
from quant_core.quant import Int8ActPerTensorFloat, Int8WeightPerTensorFloat, Int32Bias, ShiftedUint8ActPerTensorFloat

TESTED = 60
LAYER: dict[str, Any] = {"weight_quant": Int8WeightPerTensorFloat, "weight_scaling_per_output_channel": True}


class ReducedRangeActQuant(ShiftedUint8ActPerTensorFloat):
    bit_width = 7


class MixedFloatQuantLeNet(nn.Module):
    """The network of the tutorial in its setting for PyTorch: no quantized bias, 7-bit activations, signed weights."""

    def __init__(self, act_quant: Any = ReducedRangeActQuant) -> None:
        super().__init__()
        layer = {"weight_quant": Int8WeightPerTensorFloat, "output_quant": act_quant, "bias_quant": None}
        self.conv1 = qnn.QuantConv2d(3, 6, 5, input_quant=act_quant, return_quant_tensor=True, **layer)
        self.relu1 = nn.ReLU()
        self.conv2 = qnn.QuantConv2d(6, 16, 5, return_quant_tensor=True, **layer)
        self.relu2 = nn.ReLU()
        self.fc1 = qnn.QuantLinear(256, 120, bias=True, return_quant_tensor=False, **layer)
        self.relu3 = nn.ReLU()
        self.fc2 = nn.Linear(120, 84)
        self.relu4 = nn.ReLU()
        self.fc3 = nn.Linear(84, 10, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu1(self.conv1(x))
        out = F.max_pool2d(out, 2)
        out = self.relu2(self.conv2(out))
        out = F.max_pool2d(out, 2)
        out = out.reshape(out.shape[0], -1)
        out = self.relu3(self.fc1(out))
        out = self.relu4(self.fc2(out))
        out = self.fc3(out)
        return out


def conv(*sizes: int, **options: Any) -> nn.Module:
    return qnn.QuantConv2d(*sizes, bias_quant=Int32Bias, return_quant_tensor=True, **options, **LAYER)


def relu() -> nn.Module:
    return qnn.QuantReLU(bit_width=8, return_quant_tensor=True)


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, incoming: int, outgoing: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.relu1 = conv(incoming, outgoing, 3, stride=stride, padding=1), relu()
        self.conv2 = conv(outgoing, outgoing, 3, padding=1, output_quant=Int8ActPerTensorFloat)
        self.shortcut = conv(incoming, outgoing, 1, stride=stride, output_quant=Int8ActPerTensorFloat)
        self.relu2 = relu()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu2(self.conv2(self.relu1(self.conv1(x))).value + self.shortcut(x).value)
        return out


class ResNet8(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            qnn.QuantIdentity(return_quant_tensor=True),
            conv(1, 8, 3, padding=1),
            relu(),
            *(Block(8, 8, 1), Block(8, 16, 2), Block(16, 32, 2)),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            qnn.QuantIdentity(return_quant_tensor=True),
            qnn.QuantLinear(32, 10, bias=True, bias_quant=Int32Bias, output_quant=Int8ActPerTensorFloat, **LAYER),
        )


class MobileNetV1(nn.Sequential):
    """Depthwise and pointwise convolutions by turns."""

    def __init__(self) -> None:
        layers: list[nn.Module] = [qnn.QuantIdentity(return_quant_tensor=True), conv(1, 8, 3, padding=1), relu()]
        for incoming, outgoing, stride in ((8, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2)):
            layers += [conv(incoming, incoming, 3, stride=stride, padding=1, groups=incoming), relu()]
            layers += [conv(incoming, outgoing, 1), relu()]
        super().__init__(
            *layers,
            nn.AvgPool2d(2),
            nn.Flatten(),
            qnn.QuantIdentity(return_quant_tensor=True),
            qnn.QuantLinear(64, 10, bias=True, bias_quant=Int32Bias, output_quant=Int8ActPerTensorFloat, **LAYER),
        )


NETWORKS: dict[str, tuple[Callable[[], nn.Module], dict[str, int]]] = {
    "ResNet-8": (ResNet8, {"conv2d_relu": 4, "conv2d": 6, "add_relu": 3, "linear": 1}),
    "MobileNetV1": (MobileNetV1, {"conv2d_relu": 9, "linear": 1}),
}
"""How each is built, and the operators of integers in its script."""


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    images, classes = load_digits(return_X_y=True)
    return torch.tensor(images).float().reshape(-1, 1, 8, 8) / 16, torch.tensor(classes)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=NETWORKS)
def trained(request: Any, digits: tuple[Tensor, Tensor]) -> tuple[nn.Module, dict[str, int]]:
    """A network after a round through a part of the digits."""
    torch.manual_seed(0)
    build, operators = NETWORKS[request.param]
    net, (images, classes) = build(), digits
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(2):
        for rows in torch.randperm(len(images) - TESTED)[:1024].split(64):
            optimizer.zero_grad()
            F.cross_entropy(net(images[rows]), classes[rows]).backward()
            optimizer.step()
    return net.eval(), operators


def test_scripts_of_networks(trained: tuple[nn.Module, dict[str, int]], digits: tuple[Tensor, Tensor]) -> None:
    net, operators = trained
    done = export(net, (digits[0][-TESTED:],), target="torchq", dynamic_shapes="batch")
    calls: Any = done.artifact
    found = Counter(name.removeprefix("quantized.") for name in calls.calls if name.startswith("quantized."))
    assert found == operators
    assert done.verification is not None
    assert done.verification.equal


@pytest.mark.parametrize("flavor", ["x86", "xnnpack"])
def test_programs_of_networks(
    trained: tuple[nn.Module, dict[str, int]], digits: tuple[Tensor, Tensor], flavor: str
) -> None:
    net, _ = trained
    done = export(net, (digits[0][-TESTED:],), target="pt2e", dynamic_shapes="batch", options={"flavor": flavor})
    assert done.verification is not None
    assert done.verification.equal


def test_the_lenet_of_the_tutorial_in_its_setting_for_pytorch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = MixedFloatQuantLeNet()
    for _ in range(3):
        net(torch.randn(8, 3, 28, 28))
    x = torch.randn(4, 3, 28, 28)
    done = export(net.eval(), (x,), target="torchq", path=tmp_path / "lenet.pt")
    assert done.verification is not None
    assert done.verification.equal
    calls: Any = done.artifact
    assert calls.calls == (
        *("aten.quantize_per_tensor", "aten.clamp", "quantized.conv2d", "aten.clamp", "aten.relu", "aten.max_pool2d"),
        *("quantized.conv2d", "aten.clamp", "aten.relu", "aten.max_pool2d", "aten.reshape"),
        *("quantized.linear", "aten.clamp", "aten.relu", "aten.dequantize"),
        *("aten.linear", "aten.relu", "aten.linear"),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about its own format
        traced = torch.jit.load(done.path)
        assert torch.equal(traced(x), done.artifact.run(x))
    assert check(done.program, "torchq").ok
