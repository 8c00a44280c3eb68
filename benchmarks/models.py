"""Three networks, each written once and built from float, from our or from Brevitas's layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Layers:
    """What a network is built from: the layers of one library at W4A4, with a quantizer of the input where it is asked for."""

    name: str
    conv: Callable[..., nn.Module]
    linear: Callable[..., nn.Module]
    relu: Callable[[], nn.Module]
    entry: Callable[[], nn.Module]


def float_layers() -> Layers:
    """Float torch."""
    return Layers(name="float", conv=nn.Conv2d, linear=nn.Linear, relu=nn.ReLU, entry=nn.Identity)


def our_layers(*, quantize_input: bool = False, **options: Any) -> Layers:
    """quant_nn."""
    import quant_nn as qnn

    return Layers(
        name="ours",
        conv=lambda *a, **k: qnn.QuantConv2d(*a, weight_bit_width=4, **k),
        linear=lambda *a, **k: qnn.QuantLinear(*a, weight_bit_width=4, **k),
        relu=lambda: qnn.QuantReLU(bit_width=4, **options),
        entry=lambda: qnn.QuantIdentity(bit_width=8, **options) if quantize_input else nn.Identity(),
    )


def brevitas_layers(*, quantize_input: bool = False, **options: Any) -> Layers:
    """Brevitas."""
    import brevitas.nn as bnn

    return Layers(
        name="brevitas",
        conv=lambda *a, **k: bnn.QuantConv2d(*a, weight_bit_width=4, **k),
        linear=lambda *a, **k: bnn.QuantLinear(*a, weight_bit_width=4, **k),
        relu=lambda: bnn.QuantReLU(bit_width=4, **options),
        entry=lambda: bnn.QuantIdentity(bit_width=8, **options) if quantize_input else nn.Identity(),
    )


def lenet(layers: Layers) -> nn.Module:
    """LeNet-5 for 3×32×32 inputs."""
    return nn.Sequential(
        layers.entry(),
        layers.conv(3, 6, 5),
        layers.relu(),
        nn.MaxPool2d(2),
        layers.conv(6, 16, 5),
        layers.relu(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        layers.linear(400, 120, bias=True),
        layers.relu(),
        layers.linear(120, 84, bias=True),
        layers.relu(),
        layers.linear(84, 10, bias=True),
    )


class Residual(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, layers: Layers, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            layers.conv(inputs, outputs, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            layers.relu(),
            layers.conv(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = (
            nn.Identity()
            if inputs == outputs and stride == 1
            else nn.Sequential(layers.conv(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))
        )
        self.relu = layers.relu()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.body(x) + self.shortcut(x))
        return out


def resnet8(layers: Layers) -> nn.Module:
    """ResNet-8 for CIFAR: 16, 32 and 64 channels."""
    return nn.Sequential(
        layers.entry(),
        layers.conv(3, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        layers.relu(),
        Residual(layers, 16, 16, 1),
        Residual(layers, 16, 32, 2),
        Residual(layers, 32, 64, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        layers.linear(64, 10, bias=True),
    )


def mobilenet(layers: Layers) -> nn.Module:
    """MobileNetV1 at half width."""
    plan = [(32, 1), (64, 2), (64, 1), (128, 2), (128, 1), (256, 2), *[(256, 1)] * 5, (512, 2), (512, 1)]
    modules: list[nn.Module] = [layers.entry(), *_block(layers, 3, 16, 3, 1, 1)]
    channels = 16
    for outputs, stride in plan:
        modules += _block(layers, channels, channels, 3, stride, channels)
        modules += _block(layers, channels, outputs, 1, 1, 1)
        channels = outputs
    return nn.Sequential(*modules, nn.AdaptiveAvgPool2d(1), nn.Flatten(), layers.linear(channels, 10, bias=True))


def _block(layers: Layers, inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> list[nn.Module]:
    conv = layers.conv(inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs), layers.relu()]


NETWORKS: dict[str, tuple[Callable[[Layers], nn.Module], int]] = {
    "lenet": (lenet, 128),
    "resnet8": (resnet8, 32),
    "mobilenet": (mobilenet, 32),
}
"""Name → how to build it, and the size of a batch."""
