"""ProxylessNAS Mobile14 at 4 bits: inverted bottlenecks of kernels 3, 5 and 7 that a search chose, 1.4 times as wide.

Cai, Zhu and Han, "ProxylessNAS: direct neural architecture search on target task and hardware", arXiv:1812.00332. The Hadamard
classifier: Hoffer, Hubara and Soudry, "Fix your classifier", arXiv:1801.04540, section 3.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

import quant_nn as qnn
from zoo.blocks import convolution, relu

EPS = 1e-3
"""Of batch norm."""


class Unit(NamedTuple):
    """One inverted bottleneck: its output channels, kernel, expansion, stride, and whether the input is added."""

    channels: int
    kernel: int
    expansion: int
    stride: int = 1
    shortcut: bool = False


def _stage(channels: int, stride: int, kernels: tuple[int, ...], expansions: tuple[int, ...]) -> list[Unit]:
    """Units of one width: the first one changes the width, the others are added to what comes in."""
    first, *others = zip(kernels, expansions, strict=True)
    return [Unit(channels, *first, stride), *(Unit(channels, *other, shortcut=True) for other in others)]


PLAN = [
    *_stage(24, 1, (3,), (1,)),
    *_stage(40, 2, (5, 3), (3, 3)),
    *_stage(56, 2, (7, 3, 5, 5), (3, 3, 3, 3)),
    *_stage(112, 2, (7, 5, 5, 5), (6, 3, 3, 3)),
    *_stage(136, 1, (5, 5, 5, 5), (6, 3, 3, 3)),
    *_stage(256, 2, (7, 7, 7, 7), (6, 6, 3, 3)),
    *_stage(448, 1, (7,), (6,)),
]
FIRST, LAST = 48, 1792


class Bottleneck(nn.Module):
    """Expand, convolve each channel by itself, project; where asked for, add to what came in, on one grid."""

    def __init__(self, inputs: int, unit: Unit, bits: int, depthwise_bits: int) -> None:
        super().__init__()
        middle = inputs * unit.expansion
        expand = []
        if unit.expansion > 1:
            expand = [*convolution(inputs, middle, 1, bits=bits, eps=EPS), relu(depthwise_bits, middle, max_val=6)]
        depthwise = {"bits": depthwise_bits, "stride": unit.stride, "groups": middle, "eps": EPS}
        self.body = nn.Sequential(
            *expand,
            *convolution(middle, middle, unit.kernel, **depthwise),  # type: ignore[arg-type]
            relu(bits, max_val=6),
            *convolution(middle, unit.channels, 1, bits=bits, eps=EPS),
        )
        # Sums need a level for negative numbers as well; what is added is brought to one scale first.
        self.join = qnn.QuantEltwiseAdd(input_bit_width=bits, output_bit_width=bits) if unit.shortcut else None
        self.exit = None if unit.shortcut else qnn.QuantIdentity(bit_width=bits)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` → ``(N, channels, H/stride, W/stride)``."""
        body = self.body(x)
        out: Tensor = self.exit(body) if self.join is None else self.join(x, body)  # type: ignore[misc]
        return out


class ProxylessNASMobile14(nn.Sequential):
    """``(N, C, H, W)`` → ``(N, classes)``.

    Args:
        classes: how many there are.
        size: channels, height and width of the images, which are squares of a multiple of 32.
        bits: of weights and activations.
        depthwise_bits: of the weights of depthwise convolutions and of what comes into them; ``bits`` by default.
        first_bits: of the first layer's weights.
        hadamard: a classifier of fixed ±1, of which nothing is learned but one scale.
    """

    def __init__(
        self,
        classes: int = 1000,
        size: tuple[int, int, int] = (3, 224, 224),
        bits: int = 4,
        depthwise_bits: int | None = None,
        first_bits: int = 8,
        hadamard: bool = False,
    ) -> None:
        within = depthwise_bits or bits
        layers = [*convolution(size[0], FIRST, 3, bits=first_bits, stride=2, eps=EPS), relu(within, FIRST, max_val=6)]
        channels = FIRST
        for unit in PLAN:
            layers.append(Bottleneck(channels, unit, bits, within))
            channels = unit.channels
        layers += [*convolution(channels, LAST, 1, bits=bits, eps=EPS), relu(bits, max_val=6)]
        classifier: nn.Module = (
            qnn.HadamardClassifier(LAST, classes) if hadamard else qnn.QuantLinear(LAST, classes, weight_bit_width=bits)
        )
        super().__init__(*layers, qnn.TruncAvgPool2d(size[1] // 32, bit_width=bits), nn.Flatten(), classifier)
