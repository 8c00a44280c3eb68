"""Networks as users of DPUs write them, trained a little on digits: their files give every integer that the models give."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.export import capture, check, export
from quant_core.quant import Int8ActPerTensorFixedPoint as ActQuant
from quant_core.quant import Int8BiasPerTensorFixedPointInternalScaling as BiasQuant
from quant_core.quant import Int8WeightPerTensorFixedPoint as WeightQuant

TARGETS = ("dpuv1", "dpuv2")
TESTED = 60


class DPULeNet(nn.Module):
    """The network of the tutorial, as it stands there; its 256 features are those of images of 28 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = qnn.QuantConv2d(
            3,
            6,
            5,
            input_quant=ActQuant,
            weight_quant=WeightQuant,
            output_quant=ActQuant,
            bias_quant=BiasQuant,
            return_quant_tensor=True,
        )
        self.relu1 = nn.ReLU()
        self.conv2 = qnn.QuantConv2d(
            6, 16, 5, weight_quant=WeightQuant, output_quant=ActQuant, bias_quant=BiasQuant, return_quant_tensor=True
        )
        self.relu2 = nn.ReLU()
        self.fc1 = qnn.QuantLinear(
            256,
            120,
            bias=True,
            weight_quant=WeightQuant,
            bias_quant=BiasQuant,
            output_quant=ActQuant,
            return_quant_tensor=True,
        )
        self.relu3 = nn.ReLU()
        self.fc2 = qnn.QuantLinear(
            120,
            84,
            bias=True,
            weight_quant=WeightQuant,
            bias_quant=BiasQuant,
            output_quant=ActQuant,
            return_quant_tensor=True,
        )
        self.relu4 = nn.ReLU()
        self.fc3 = qnn.QuantLinear(84, 10, bias=False, weight_quant=WeightQuant, output_quant=ActQuant)

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


class Act(ActQuant):
    """Rounds as the DPU does; few steps of statistics for short trainings."""

    rounding_mode = "DPU"
    collect_stats_steps = 8


LAYER: dict[str, Any] = {"weight_quant": WeightQuant, "bias_quant": BiasQuant}


def conv(*size: int, **options: Any) -> nn.Module:
    return qnn.QuantConv2d(*size, **LAYER, **options)


def relu() -> nn.Module:
    return qnn.QuantReLU(Act)


class Block(nn.Module):
    """Two convolutions beside a shortcut, as MLPerf Tiny has them."""

    def __init__(self, incoming: int, outgoing: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.relu1 = conv(incoming, outgoing, 3, stride=stride, padding=1), relu()
        self.conv2 = conv(outgoing, outgoing, 3, padding=1, output_quant=Act)
        same = incoming == outgoing and stride == 1
        self.shortcut = nn.Identity() if same else conv(incoming, outgoing, 1, stride=stride, output_quant=Act)
        self.relu2 = relu()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu2(self.conv2(self.relu1(self.conv1(x))) + self.shortcut(x))


class ResNet8(nn.Sequential):
    def __init__(self) -> None:
        blocks = [Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2)]
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), qnn.QuantIdentity(Act)]
        super().__init__(
            qnn.QuantIdentity(Act),
            conv(1, 16, 3, padding=1),
            relu(),
            *blocks,
            *head,
            qnn.QuantLinear(64, 10, output_quant=Act, **LAYER),
        )


class MobileNetV1(nn.Sequential):
    """Depthwise and pointwise convolutions by turns."""

    def __init__(self) -> None:
        layers: list[nn.Module] = [qnn.QuantIdentity(Act), conv(1, 8, 3, padding=1), relu()]
        for incoming, outgoing, stride in ((8, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2)):
            layers += [conv(incoming, incoming, 3, stride=stride, padding=1, groups=incoming), relu()]
            layers += [conv(incoming, outgoing, 1), relu()]
        super().__init__(
            *layers,
            nn.AvgPool2d(2),
            qnn.QuantIdentity(Act),
            nn.Flatten(),
            qnn.QuantLinear(64, 10, output_quant=Act, **LAYER),
        )


NETWORKS: dict[str, tuple[Callable[[], nn.Module], dict[str, int]]] = {
    "ResNet-8": (
        ResNet8,
        {"Conv": 9, "Relu": 7, "Add": 3, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1},
    ),
    "MobileNetV1": (MobileNetV1, {"Conv": 9, "Relu": 9, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1}),
}


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    images, classes = load_digits(return_X_y=True)
    return torch.tensor(images).float().reshape(-1, 1, 8, 8) / 16, torch.tensor(classes)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module", params=NETWORKS)
def trained(request: Any, digits: tuple[Tensor, Tensor]) -> tuple[nn.Module, dict[str, int]]:
    """A network after four rounds through the digits that are not for testing."""
    torch.manual_seed(0)
    build, operators = NETWORKS[request.param]
    net, (images, classes) = build(), digits
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")  # no batch norm keeps the values apart
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(4):
        for rows in torch.randperm(len(images) - TESTED).split(64):
            optimizer.zero_grad()
            F.cross_entropy(net(images[rows]), classes[rows]).backward()
            optimizer.step()
    return net.eval(), operators


@pytest.mark.parametrize("target", TARGETS)
def test_every_integer_of_the_file_is_that_of_the_model(
    trained: tuple[nn.Module, dict[str, int]], digits: tuple[Tensor, Tensor], target: str, tmp_path: Path
) -> None:
    net, operators = trained
    images, classes = (part[-TESTED:] for part in digits)
    done = export(net, (images,), target=target, path=tmp_path / "net.onnx")
    assert done.verification is not None
    assert (done.verification.max_difference, done.verification.ties) == (0, 0)
    trace = done.artifact.trace([images])
    assert len([row for row in trace.rows if row.steps == 0]) == done.verification.compared
    assert all(row.difference == 0 for row in trace.rows)
    given = done.artifact.run(images)
    assert torch.equal(given, net(images))
    assert float((given.argmax(1) == classes).float().mean()) > 0.8
    model = onnx.load(done.path)
    onnx.checker.check_model(model)
    found = Counter(node.op_type for node in model.graph.node if node.op_type != "Pad")
    assert dict(found) == operators


@pytest.mark.parametrize("target", TARGETS)
def test_the_network_of_the_tutorial_runs_as_written(
    digits: tuple[Tensor, Tensor], target: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    dpu_lenet = DPULeNet()
    images = F.interpolate(digits[0][:8], size=28).expand(-1, 3, -1, -1)
    for _ in range(3):
        dpu_lenet(images)
    done = export(dpu_lenet, (images[:1],), target=target, path=tmp_path / "lenet.onnx")
    assert done.verification is not None
    assert done.verification.equal
    model = onnx.load(done.path)
    assert [node.op_type for node in model.graph.node] == [
        *("Conv", "Relu", "MaxPool") * 2,
        "Reshape",
        *("Gemm", "Relu") * 2,
        "Gemm",
    ]
    assert [node.name for node in model.graph.node][:3] == ["conv1/Conv", "relu1/Relu", "MaxPool"]
    report = check(capture(dpu_lenet, (images[:1],)), target)
    assert [note.what.partition(",")[0] for note in report.notes] == [
        "values halfway between two steps are rounded by ROUND in 6 of 6 quantizers"
    ]


def test_with_the_rounding_of_the_dpu_no_integer_differs(digits: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(0)
    net = DPULeNet()
    images = F.interpolate(digits[0][:8], size=28).expand(-1, 3, -1, -1)
    for _ in range(3):
        net(images)
    for module in net.modules():
        if hasattr(module, "rounding_mode"):
            module.rounding_mode = "DPU"
    done = export(net, (images,), target="dpuv2")
    assert done.verification is not None
    assert (done.verification.max_difference, done.verification.ties) == (0, 0)
