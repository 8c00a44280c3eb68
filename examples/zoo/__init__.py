"""Networks to start from, by name: ``NETWORKS["cnv-w1a1"].build(classes=10)``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from zoo.finn import convolutional, fully_connected
from zoo.lenets import DPULeNet, LowPrecisionLeNet, MixedFloatQuantLeNet, QuantLeNet, QuantWeightLeNet
from zoo.mobilenet_v1 import MobileNetV1
from zoo.proxylessnas import ProxylessNASMobile14

__all__ = ["NETWORKS", "Network"]


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network of the zoo.

    Attributes:
        build: ``build(classes=10)`` gives the module.
        size: channels, height and width of an image.
        summary: one line.
    """

    build: Callable[..., nn.Module]
    size: tuple[int, int, int]
    summary: str


def _lenet(build: Callable[..., nn.Module], side: int, summary: str) -> Network:
    return Network(build=build, size=(3, side, side), summary=f"LeNet-5, {summary}")


def _imagenet(build: Callable[..., nn.Module], summary: str) -> Network:
    return Network(build=build, size=(3, 224, 224), summary=summary)


NETWORKS: dict[str, Network] = {
    "lenet-w3": _lenet(QuantWeightLeNet, 32, "3-bit weights, all else in float"),
    "lenet-w3a4": _lenet(LowPrecisionLeNet, 32, "3-bit weights, 4-bit activations, 8-bit biases"),
    "lenet-mixed": _lenet(MixedFloatQuantLeNet, 28, "8-bit first layers, the last ones in float"),
    "lenet-dpu": _lenet(DPULeNet, 28, "8-bit fixed point for the DPU"),
    "lenet-w8a8": _lenet(QuantLeNet, 32, "8-bit weights and ReLU6"),
    "mobilenet-v1-4b": _imagenet(MobileNetV1, "MobileNetV1, 4-bit weights and activations"),
    "proxylessnas-mobile14-4b": _imagenet(ProxylessNASMobile14, "ProxylessNAS Mobile14, 4 bits"),
    "proxylessnas-mobile14-hadamard-4b": _imagenet(
        partial(ProxylessNASMobile14, hadamard=True), "ProxylessNAS Mobile14, 4 bits, Hadamard classifier"
    ),
    "proxylessnas-mobile14-4b5b": _imagenet(
        partial(ProxylessNASMobile14, depthwise_bits=5),
        "ProxylessNAS Mobile14, 4 bits, 5 bits in depthwise convolutions",
    ),
    **{
        f"{name}-w{weight}a{activation}": Network(
            build=partial(fully_connected, width=width, weight_bits=weight, bits=activation),
            size=(1, 28, 28),
            summary=f"FINN's {name.upper()}: three hidden layers of {width}",
        )
        for name, width in (("tfc", 64), ("sfc", 256), ("lfc", 1024))
        for weight, activation in ((1, 1), (1, 2), (2, 2), (4, 4))
    },
    **{
        f"cnv-w{weight}a{activation}": Network(
            build=partial(convolutional, weight_bits=weight, bits=activation),
            size=(3, 32, 32),
            summary="FINN's CNV: six convolutions, two hidden layers",
        )
        for weight, activation in ((1, 1), (1, 2), (2, 2))
    },
}
