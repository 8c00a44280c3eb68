"""Networks as users of FINN write them, trained on digits: both targets classify every image as the model does."""

from __future__ import annotations

from collections.abc import Callable
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
from quant_core.export import capture, check, export
from quant_core.quant import Int8Bias, SignedBinaryActPerTensorConst, SignedBinaryWeightPerTensorConst

TESTED = 50
TRAINED = 1000


class LowPrecisionLeNet(nn.Module):
    """LeNet-5 with weights of 3 bits, activations of 4 and biases of 8."""

    size = (3, 32, 32)

    def __init__(self) -> None:
        super().__init__()
        options: dict[str, Any] = {"weight_bit_width": 3, "bias_quant": Int8Bias, "return_quant_tensor": True}
        self.quant_inp = qnn.QuantIdentity(bit_width=4, return_quant_tensor=True)
        self.conv1 = qnn.QuantConv2d(3, 6, 5, **options)
        self.relu1 = qnn.QuantReLU(bit_width=4, return_quant_tensor=True)
        self.conv2 = qnn.QuantConv2d(6, 16, 5, **options)
        self.relu2 = qnn.QuantReLU(bit_width=4, return_quant_tensor=True)
        self.fc1 = qnn.QuantLinear(16 * 5 * 5, 120, **options)
        self.relu3 = qnn.QuantReLU(bit_width=4, return_quant_tensor=True)
        self.fc2 = qnn.QuantLinear(120, 84, **options)
        self.relu4 = qnn.QuantReLU(bit_width=4, return_quant_tensor=True)
        self.fc3 = qnn.QuantLinear(84, 10, bias=False, weight_bit_width=3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.relu1(self.conv1(self.quant_inp(x))), 2)
        x = F.max_pool2d(self.relu2(self.conv2(x)), 2)
        x = x.reshape(x.shape[0], -1)
        return self.fc3(self.relu4(self.fc2(self.relu3(self.fc1(x)))))


def weights(bits: int) -> dict[str, Any]:
    """Options of layers with weights of 1 or 2 bits."""
    if bits == 1:
        return {"weight_quant": SignedBinaryWeightPerTensorConst, "bias": False}
    return {"weight_bit_width": bits, "bias": False}


def activation(bits: int) -> nn.Module:
    """An activation of 1 or 2 bits."""
    if bits == 1:
        return qnn.QuantIdentity(SignedBinaryActPerTensorConst, scaling_init=1.0)
    return qnn.QuantReLU(bit_width=bits)


class FullyConnected(nn.Sequential):
    """Three hidden layers, each with batch norm: TFC, SFC and LFC by their width."""

    size = (1, 8, 8)

    def __init__(self, width: int, weight_bits: int, bits: int) -> None:
        layers: list[nn.Module] = [nn.Flatten(), qnn.QuantIdentity(bit_width=4)]
        for inputs in (64, width, width):
            layers += [qnn.QuantLinear(inputs, width, **weights(weight_bits)), nn.BatchNorm1d(width), activation(bits)]
        super().__init__(*layers, qnn.QuantLinear(width, 10, **weights(weight_bits)), nn.BatchNorm1d(10))


class Convolutional(nn.Sequential):
    """CNV in small: pairs of convolutions without padding, each with batch norm, and a classifier."""

    size = (1, 16, 16)

    def __init__(self, weight_bits: int, bits: int) -> None:
        layers: list[nn.Module] = [qnn.QuantIdentity(bit_width=8)]
        for inputs, outputs, pooled in ((1, 16, False), (16, 16, True), (16, 32, False), (32, 32, True)):
            layers += [qnn.QuantConv2d(inputs, outputs, 3, **weights(weight_bits)), nn.BatchNorm2d(outputs)]
            layers += [activation(bits), *([nn.MaxPool2d(2)] if pooled else [])]
        layers += [nn.Flatten(), qnn.QuantLinear(32, 64, **weights(weight_bits)), nn.BatchNorm1d(64), activation(bits)]
        super().__init__(*layers, qnn.QuantLinear(64, 10, **weights(weight_bits)), nn.BatchNorm1d(10))


class MobileNet(nn.Sequential):
    """MobileNetV1 in small: depthwise and pointwise convolutions at 4 bits, scales per channel."""

    size = (1, 16, 16)

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

    size = (1, 16, 16)

    def __init__(self) -> None:
        stem = [qnn.QuantIdentity(bit_width=8), qnn.QuantConv2d(1, 8, 3, padding=1, bias=False, weight_bit_width=4)]
        blocks = [Block(8, 8, 1), Block(8, 16, 2), Block(16, 32, 2)]
        head = [nn.AvgPool2d(4), nn.Flatten(), qnn.QuantLinear(32, 10, weight_bit_width=4)]
        super().__init__(*stem, nn.BatchNorm2d(8), qnn.QuantReLU(bit_width=4), *blocks, *head)


NETS: dict[str, tuple[Callable[[], nn.Module], int, float]] = {
    "LowPrecisionLeNet": (LowPrecisionLeNet, 3, 0.8),
    "TFC-w1a1": (lambda: FullyConnected(64, 1, 1), 8, 0.8),
    "TFC-w2a2": (lambda: FullyConnected(64, 2, 2), 8, 0.8),
    "SFC-w1a2": (lambda: FullyConnected(256, 1, 2), 4, 0.8),
    "LFC-w1a1": (lambda: FullyConnected(1024, 1, 1), 2, 0.8),
    "CNV-w1a1": (lambda: Convolutional(1, 1), 5, 0.7),
    "CNV-w2a2": (lambda: Convolutional(2, 2), 4, 0.7),
    "MobileNetV1-w4a4": (MobileNet, 5, 0.7),
    "ResNet-8-w4a4": (ResNet8, 3, 0.7),
}


def digits(size: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Images from −1 to 1 in the size of a network, and what they show."""
    found = load_digits()
    images = torch.tensor(found.images, dtype=torch.float32)[:, None] / 8 - 1
    channels, height, width = size
    return F.interpolate(images, (height, width)).expand(-1, channels, -1, -1), torch.tensor(found.target)


def trained(net: nn.Module, epochs: int) -> nn.Module:
    """A network after a few epochs."""
    images, labels = digits(net.size)  # type: ignore[arg-type]
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(epochs):
        for batch in torch.randperm(TRAINED).split(64):
            optimizer.zero_grad()
            F.cross_entropy(net(images[batch]), labels[batch]).backward()
            optimizer.step()
    return net.eval()


@pytest.mark.parametrize(("build", "epochs", "least"), NETS.values(), ids=NETS.keys())
def test_both_targets_classify_as_the_model_does(build: Callable[[], nn.Module], epochs: int, least: float) -> None:
    torch.manual_seed(0)
    net = trained(build(), epochs)
    images, labels = (both[-TESTED:] for both in digits(net.size))  # type: ignore[arg-type]
    with torch.no_grad():
        expected = net(images)
    accuracy = float((expected.argmax(1) == labels).float().mean())
    assert accuracy >= least
    for target in ("qonnx", "finn"):
        done = export(net, (images,), target=target)
        assert done.verification.equal
        theirs = done.artifact.run(images)
        assert float((theirs.argmax(1) == labels).float().mean()) == accuracy
    inferred = ModelWrapper(onnx.load_from_string(done.artifact.content())).transform(InferDataTypes())
    for node in inferred.graph.node:
        if node.op_type in ("Conv", "MatMul"):
            data, weight, total = (inferred.get_tensor_datatype(name) for name in (*node.input[:2], node.output[0]))
            assert weight.is_integer()
            averaged = inferred.find_producer(node.input[0]).op_type == "Flatten" and data.name == "FLOAT32"
            assert averaged or (data.is_integer() and total.is_integer()), node.name


def test_a_file_survives_cleanup_in_front_of_finn() -> None:
    torch.manual_seed(0)
    net = trained(FullyConnected(64, 2, 2), 1)
    images, _ = (both[-4:] for both in digits(net.size))  # type: ignore[arg-type]
    for target in ("qonnx", "finn"):
        artifact = export(net, (images,), target=target).artifact
        wrapped = ModelWrapper(onnx.load_from_string(artifact.content()))
        cleaned = cleanup_model(wrapped)
        (name,) = [value.name for value in cleaned.graph.input]
        (after,) = execute_onnx(cleaned, {name: images.numpy()}).values()
        np.testing.assert_allclose(after, artifact.run(images).numpy(), rtol=1e-5, atol=1e-6)


def test_a_network_is_checked_before_it_is_trained() -> None:
    net = FullyConnected(64, 2, 2).eval()
    images, _ = digits(net.size)  # type: ignore[arg-type]
    assert check(capture(net, (images[:1],)), "finn").ok
