"""The small networks of FINN, with weights and activations of 1 or 2 bits.

Umuroglu et al., "FINN: a framework for fast, scalable binarized neural network inference", FPGA 2017, section 5.1.
"""

from __future__ import annotations

import math
from typing import Any

from torch import nn

import quant_nn as qnn
from quant_core.quant import SignedBinaryActPerTensorConst, SignedBinaryWeightPerTensorConst


def fully_connected(
    classes: int = 10, *, width: int, weight_bits: int, bits: int, size: tuple[int, int, int] = (1, 28, 28)
) -> nn.Sequential:
    """Three hidden layers of one width: TFC has 64, SFC 256, LFC 1024.

    Args:
        classes: how many there are.
        width: of the hidden layers.
        weight_bits: of the weights, 1 or more.
        bits: of the activations, 1 or more.
        size: channels, height and width of the images.
    """
    layers: list[nn.Module] = [nn.Flatten(), qnn.QuantIdentity(bit_width=8)]
    inputs = math.prod(size)
    for outputs in (width, width, width):
        layers += [qnn.QuantLinear(inputs, outputs, **_weight(weight_bits)), nn.BatchNorm1d(outputs), _activation(bits)]
        inputs = outputs
    return nn.Sequential(*layers, qnn.QuantLinear(inputs, classes, **_weight(weight_bits)), nn.BatchNorm1d(classes))


def convolutional(
    classes: int = 10, *, weight_bits: int, bits: int, width: int = 64, size: tuple[int, int, int] = (3, 32, 32)
) -> nn.Sequential:
    """CNV: three pairs of convolutions without padding, two hidden layers.

    Args:
        classes: how many there are.
        weight_bits: of the weights, 1 or more.
        bits: of the activations, 1 or more.
        width: channels of the first pair; the next ones have two and four times as many, the hidden layers eight times.
        size: channels, height and width of the images, which leave one pixel after the last pair: 32 to 35.
    """
    if not all(32 <= side <= 35 for side in size[1:]):
        raise ValueError(f"images of {size[1]}×{size[2]} do not leave one pixel: height and width are 32 to 35")
    layers: list[nn.Module] = [qnn.QuantIdentity(bit_width=8)]
    inputs = size[0]
    for outputs, pools in (
        (width, False),
        (width, True),
        (2 * width, False),
        (2 * width, True),
        (4 * width, False),
        (4 * width, False),
    ):
        layers += [qnn.QuantConv2d(inputs, outputs, 3, **_weight(weight_bits)), nn.BatchNorm2d(outputs)]
        layers += [_activation(bits), *([nn.MaxPool2d(2)] if pools else [])]
        inputs = outputs
    layers.append(nn.Flatten())
    for _ in range(2):
        layers += [qnn.QuantLinear(inputs, 8 * width, **_weight(weight_bits))]
        layers += [nn.BatchNorm1d(8 * width), _activation(bits)]
        inputs = 8 * width
    return nn.Sequential(*layers, qnn.QuantLinear(inputs, classes, **_weight(weight_bits)), nn.BatchNorm1d(classes))


def _weight(bits: int) -> dict[str, Any]:
    if bits == 1:
        return {"weight_quant": SignedBinaryWeightPerTensorConst, "bias": False}
    return {"weight_bit_width": bits, "bias": False}


def _activation(bits: int) -> nn.Module:
    if bits == 1:
        return qnn.QuantIdentity(SignedBinaryActPerTensorConst, scaling_init=1.0)  # FINN takes no other scale
    return qnn.QuantReLU(bit_width=bits)
