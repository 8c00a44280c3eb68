"""MobileNetV1 at 4 bits: 8-bit weights in the first layer, a scale for each channel, average pooling by dropping bits.

Howard et al., "MobileNets: efficient convolutional neural networks for mobile vision applications", arXiv:1704.04861, table 1.
"""

from __future__ import annotations

from torch import nn

import quant_nn as qnn
from zoo.blocks import convolution, relu

PLAN = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
"""Output channels and stride of each pair of a depthwise and a pointwise convolution."""


class MobileNetV1(nn.Sequential):
    """``(N, C, H, W)`` → ``(N, classes)``.

    Args:
        classes: how many there are.
        size: channels, height and width of the images, which are squares of a multiple of 32.
        width: what all numbers of channels are multiplied by.
        bits: of weights and activations.
        first_bits: of the first layer's weights.
    """

    def __init__(
        self,
        classes: int = 1000,
        size: tuple[int, int, int] = (3, 224, 224),
        width: float = 1.0,
        bits: int = 4,
        first_bits: int = 8,
    ) -> None:
        channels = round(32 * width)
        layers = [*convolution(size[0], channels, 3, bits=first_bits, stride=2), relu(bits, channels)]
        for index, (wanted, stride) in enumerate(PLAN):
            outputs = round(wanted * width)
            layers += convolution(channels, channels, 3, bits=bits, stride=stride, groups=channels)
            layers += [relu(bits), *convolution(channels, outputs, 1, bits=bits)]
            layers.append(relu(bits, outputs if index + 1 < len(PLAN) else None))
            channels = outputs
        pool = qnn.TruncAvgPool2d(size[1] // 32, bit_width=bits)
        super().__init__(*layers, pool, nn.Flatten(), qnn.QuantLinear(channels, classes, weight_bit_width=bits))
