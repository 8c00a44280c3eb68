"""Networks as users of FINN write them, trained on digits: both targets classify every image as the model does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.infer_datatypes import InferDataTypes
from qonnx.util.cleanup import cleanup_model
from sklearn.datasets import load_digits
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.export import capture, check, export, lower, verify

TESTED = 50
TRAINED = 1000


class MobileNet(nn.Sequential):
    """MobileNetV1 in small: depthwise and pointwise convolutions at 4 bits, scales per channel."""

    def __init__(self) -> None:
        def block(inputs: int, outputs: int, kernel: int, **options: Any) -> list[nn.Module]:
            options |= {"bias": False, "weight_bit_width": 4, "weight_scaling_per_output_channel": True}
            conv = qnn.QuantConv2d(inputs, outputs, kernel, padding=kernel // 2, **options)
            return [conv, nn.BatchNorm2d(outputs), qnn.QuantReLU(bit_width=4)]

        layers = [qnn.QuantIdentity(bit_width=8), *block(1, 16, 3, stride=2)]
        for inputs, outputs, stride in ((16, 16, 1), (16, 32, 2), (32, 32, 1)):
            layers += [*block(inputs, inputs, 3, stride=stride, groups=inputs), *block(inputs, outputs, 1)]
        super().__init__(*layers, nn.AvgPool2d(4), nn.Flatten(), qnn.QuantLinear(32, 10, weight_bit_width=4))


class Block(nn.Module):
    """Two convolutions beside a shortcut; both sides are quantized by one quantizer before they are added."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        options: dict[str, Any] = {"bias": False, "weight_bit_width": 4, "padding": 1}
        self.conv1 = qnn.QuantConv2d(inputs, outputs, 3, stride=stride, **options)
        self.norm1, self.relu1 = nn.BatchNorm2d(outputs), qnn.QuantReLU(bit_width=4)
        self.conv2 = qnn.QuantConv2d(outputs, outputs, 3, **options)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.short = qnn.QuantConv2d(inputs, outputs, 1, stride=stride, bias=False, weight_bit_width=4)
        self.norm3 = nn.BatchNorm2d(outputs)
        self.sum, self.relu2 = qnn.QuantIdentity(bit_width=4), qnn.QuantReLU(bit_width=4)

    def forward(self, x: Tensor) -> Tensor:
        main = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x)))))
        return self.relu2(self.sum(main) + self.sum(self.norm3(self.short(x))))


class ResNet8(nn.Sequential):
    """ResNet-8 in small, at 4 bits."""

    def __init__(self) -> None:
        stem = [qnn.QuantIdentity(bit_width=8), qnn.QuantConv2d(1, 8, 3, padding=1, bias=False, weight_bit_width=4)]
        blocks = [Block(8, 8, 1), Block(8, 16, 2), Block(16, 32, 2)]
        head = [nn.AvgPool2d(4), nn.Flatten(), qnn.QuantLinear(32, 10, weight_bit_width=4)]
        super().__init__(*stem, nn.BatchNorm2d(8), qnn.QuantReLU(bit_width=4), *blocks, *head)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network, and how it is trained.

    Attributes:
        build: gives it.
        size: channels, height and width of the images.
        epochs: how often it sees the images.
        least: how many it must classify, at least, for a comparison to mean something.
    """

    build: Callable[[], nn.Module]
    size: tuple[int, int, int]
    epochs: int
    least: float = 0.7


def from_zoo(name: str) -> nn.Module:
    """A network of the zoo in small: of the width of FINN's where it is fully connected, an eighth of it where it is not."""
    from zoo import NETWORKS

    build = NETWORKS[name].build
    if name.startswith("lenet"):
        return build()
    return build(size=CONVOLVED, width=8) if name.startswith("cnv") else build(size=FLAT)


FLAT, SMALL, CONVOLVED = (1, 8, 8), (1, 16, 16), (1, 32, 32)
EPOCHS = {
    **{"tfc-w1a1": 8, "tfc-w1a2": 8, "tfc-w2a2": 8, "sfc-w1a1": 4, "sfc-w1a2": 4, "sfc-w2a2": 4},
    **{"lfc-w1a1": 2, "lfc-w1a2": 1, "lfc-w2a2": 1, "cnv-w1a1": 4, "cnv-w1a2": 4, "cnv-w2a2": 3},
}
CASES = {
    "lenet-w3a4": Case(build=partial(from_zoo, "lenet-w3a4"), size=(3, 32, 32), epochs=3),
    **{
        name: Case(build=partial(from_zoo, name), size=CONVOLVED if "cnv" in name else FLAT, epochs=epochs)
        for name, epochs in EPOCHS.items()
    },
    "mobilenet-v1-w4a4": Case(build=MobileNet, size=SMALL, epochs=5),
    "resnet-8-w4a4": Case(build=ResNet8, size=SMALL, epochs=3),
}


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "examples"))


def digits(size: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Images from −1 to 1 in the size of a network, and what they show."""
    found = load_digits()
    images = torch.tensor(found.images, dtype=torch.float32)[:, None] / 8 - 1
    channels, height, width = size
    return F.interpolate(images, (height, width)).expand(-1, channels, -1, -1), torch.tensor(found.target)


def trained(case: Case, epochs: int | None = None) -> nn.Module:
    """The network of a case after its epochs, or after fewer."""
    torch.manual_seed(0)
    net = case.build()
    images, labels = digits(case.size)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(case.epochs if epochs is None else epochs):
        for batch in torch.randperm(TRAINED).split(64):
            optimizer.zero_grad()
            F.cross_entropy(net(images[batch]), labels[batch]).backward()
            optimizer.step()
    return net.eval()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_both_targets_classify_as_the_model_does(case: Case) -> None:
    net = trained(case)
    images, labels = (both[-TESTED:] for both in digits(case.size))
    with torch.no_grad():
        expected = net(images)
    accuracy = float((expected.argmax(1) == labels).float().mean())
    assert accuracy >= case.least
    program = capture(net, (images,))
    for target in ("qonnx", "finn"):
        artifact = lower(program, target)
        assert verify(program, artifact, (images,), reference=expected).equal
        theirs = artifact.run(images)
        assert float((theirs.argmax(1) == labels).float().mean()) == accuracy
    inferred = ModelWrapper(onnx.load_from_string(artifact.content())).transform(InferDataTypes())
    for node in inferred.graph.node:
        if node.op_type in ("Conv", "MatMul"):
            data, weight, total = (inferred.get_tensor_datatype(name) for name in (*node.input[:2], node.output[0]))
            assert weight.is_integer()
            averaged = inferred.find_producer(node.input[0]).op_type == "Flatten" and data.name == "FLOAT32"
            assert averaged or (data.is_integer() and total.is_integer()), node.name


def test_a_file_survives_cleanup_in_front_of_finn() -> None:
    net = trained(CASES["tfc-w2a2"], epochs=1)
    images, _ = (both[-4:] for both in digits(FLAT))
    for target in ("qonnx", "finn"):
        artifact = export(net, (images,), target=target).artifact
        wrapped = ModelWrapper(onnx.load_from_string(artifact.content()))
        cleaned = cleanup_model(wrapped)
        (name,) = [value.name for value in cleaned.graph.input]
        (after,) = execute_onnx(cleaned, {name: images.numpy()}).values()
        np.testing.assert_allclose(after, artifact.run(images).numpy(), rtol=1e-5, atol=1e-6)


def test_a_network_is_checked_before_it_is_trained() -> None:
    net = from_zoo("tfc-w2a2").eval()
    images, _ = digits(FLAT)
    assert check(capture(net, (images[:1],)), "finn").ok
