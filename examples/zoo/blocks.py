"""What the networks for ImageNet are made of: convolution, batch norm, and a quantized ReLU."""

from __future__ import annotations

from typing import Any

from torch import nn

import quant_nn as qnn


def convolution(
    inputs: int, outputs: int, kernel: int, *, bits: int, stride: int = 1, groups: int = 1, eps: float = 1e-5
) -> list[nn.Module]:
    """A convolution with one scale for each output channel, and batch norm."""
    return [
        qnn.QuantConv2d(
            inputs,
            outputs,
            kernel,
            stride=stride,
            padding=kernel // 2,
            groups=groups,
            bias=False,
            weight_bit_width=bits,
            weight_scaling_per_output_channel=True,
        ),
        nn.BatchNorm2d(outputs, eps=eps),
    ]


def relu(bits: int, channels: int | None = None, **options: Any) -> nn.Module:
    """A quantized ReLU that hands on its scale: one of them, or in front of a depthwise convolution one per channel."""
    if channels is not None:
        options |= {"scaling_per_output_channel": True, "per_channel_broadcastable_shape": (1, channels, 1, 1)}
    return qnn.QuantReLU(bit_width=bits, return_quant_tensor=True, **options)
