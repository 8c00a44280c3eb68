"""LeNet-5 in five precisions. Each class takes ``(N, 3, H, W)`` and returns ``(N, classes)``."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.quant import (
    Int8ActPerTensorFixedPoint,
    Int8Bias,
    Int8BiasPerTensorFixedPointInternalScaling,
    Int8WeightPerTensorFixedPoint,
    Int8WeightPerTensorFloat,
    ShiftedUint8ActPerTensorFloat,
    ShiftedUint8WeightPerTensorFloat,
)


class ReducedRangeActQuant(ShiftedUint8ActPerTensorFloat):
    """Unsigned activations of 7 bits, whose products do not overflow the 16-bit sums of older processors."""

    bit_width = 7


class LeNet(nn.Module):
    """The path of an image through the layers that a subclass defines."""

    entry: nn.Module
    conv1: nn.Module
    conv2: nn.Module
    fc1: nn.Module
    fc2: nn.Module
    fc3: nn.Module
    relu1: nn.Module
    relu2: nn.Module
    relu3: nn.Module
    relu4: nn.Module

    def forward(self, images: Tensor) -> Tensor:
        """Class scores."""
        x = F.max_pool2d(self.relu1(self.conv1(self.entry(images))), 2)
        x = F.max_pool2d(self.relu2(self.conv2(x)), 2)
        x = self.relu3(self.fc1(x.flatten(1)))
        scores: Tensor = self.fc3(self.relu4(self.fc2(x)))
        return scores


class QuantWeightLeNet(LeNet):
    """Weights of 3 bits; ``H = W = 32``. Nothing else is quantized."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.entry = nn.Identity()
        self.conv1 = qnn.QuantConv2d(3, 6, 5, weight_bit_width=3)
        self.conv2 = qnn.QuantConv2d(6, 16, 5, weight_bit_width=3)
        self.fc1 = qnn.QuantLinear(16 * 5 * 5, 120, weight_bit_width=3)
        self.fc2 = qnn.QuantLinear(120, 84, weight_bit_width=3)
        self.fc3 = qnn.QuantLinear(84, classes, bias=False, weight_bit_width=3)
        self.relu1, self.relu2, self.relu3, self.relu4 = nn.ReLU(), nn.ReLU(), nn.ReLU(), nn.ReLU()


class LowPrecisionLeNet(LeNet):
    """Weights of 3 bits, activations of 4, biases of 8; ``H = W = 32``. For FINN."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        layer: dict[str, Any] = {"weight_bit_width": 3, "bias_quant": Int8Bias, "return_quant_tensor": True}
        self.entry = qnn.QuantIdentity(bit_width=4, return_quant_tensor=True)
        self.conv1 = qnn.QuantConv2d(3, 6, 5, **layer)
        self.conv2 = qnn.QuantConv2d(6, 16, 5, **layer)
        self.fc1 = qnn.QuantLinear(16 * 5 * 5, 120, **layer)
        self.fc2 = qnn.QuantLinear(120, 84, **layer)
        self.fc3 = qnn.QuantLinear(84, classes, bias=False, weight_bit_width=3)
        self.relu1 = qnn.QuantReLU(bit_width=4, return_quant_tensor=True)
        self.relu2 = qnn.QuantReLU(bit_width=4, return_quant_tensor=True)
        self.relu3 = qnn.QuantReLU(bit_width=4, return_quant_tensor=True)
        self.relu4 = qnn.QuantReLU(bit_width=4, return_quant_tensor=True)


class MixedFloatQuantLeNet(LeNet):
    """8 bits up to the first linear layer and float behind it; ``H = W = 28``. For integer CPUs.

    Args:
        classes: how many there are.
        bias_quant: quantize biases.
        reduced_act_quant: activations of 7 bits.
        weight_signed: signed weights without a zero-point, in place of unsigned ones with one.
    """

    def __init__(
        self, classes: int = 10, bias_quant: bool = True, reduced_act_quant: bool = False, weight_signed: bool = False
    ) -> None:
        super().__init__()
        activation = ReducedRangeActQuant if reduced_act_quant else ShiftedUint8ActPerTensorFloat
        layer: dict[str, Any] = {
            "weight_quant": Int8WeightPerTensorFloat if weight_signed else ShiftedUint8WeightPerTensorFloat,
            "output_quant": activation,
            "bias_quant": Int8Bias if bias_quant else None,
        }
        self.entry = nn.Identity()
        self.conv1 = qnn.QuantConv2d(3, 6, 5, input_quant=activation, **layer, return_quant_tensor=True)
        self.conv2 = qnn.QuantConv2d(6, 16, 5, **layer, return_quant_tensor=True)
        self.fc1 = qnn.QuantLinear(16 * 4 * 4, 120, **layer)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, classes, bias=False)
        self.relu1, self.relu2, self.relu3, self.relu4 = nn.ReLU(), nn.ReLU(), nn.ReLU(), nn.ReLU()


class DPULeNet(LeNet):
    """8 bits, all scales powers of two; ``H = W = 28``. For the DPU."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        last: dict[str, Any] = {
            "weight_quant": Int8WeightPerTensorFixedPoint,
            "output_quant": Int8ActPerTensorFixedPoint,
        }
        layer = {**last, "bias_quant": Int8BiasPerTensorFixedPointInternalScaling, "return_quant_tensor": True}
        self.entry = nn.Identity()
        self.conv1 = qnn.QuantConv2d(3, 6, 5, input_quant=Int8ActPerTensorFixedPoint, **layer)
        self.conv2 = qnn.QuantConv2d(6, 16, 5, **layer)
        self.fc1 = qnn.QuantLinear(16 * 4 * 4, 120, **layer)
        self.fc2 = qnn.QuantLinear(120, 84, **layer)
        self.fc3 = qnn.QuantLinear(84, classes, bias=False, **last)
        self.relu1, self.relu2, self.relu3, self.relu4 = nn.ReLU(), nn.ReLU(), nn.ReLU(), nn.ReLU()


class QuantLeNet(LeNet):
    """Weights and ReLU6 of 8 bits, said with keywords; ``H = W = 32``."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        layer: dict[str, Any] = {"weight_quant_type": "int", "weight_bit_width": 8}
        relu: dict[str, Any] = {"quant_type": "int", "bit_width": 8, "max_val": 6}
        self.entry = nn.Identity()
        self.conv1 = qnn.QuantConv2d(3, 6, 5, **layer)
        self.conv2 = qnn.QuantConv2d(6, 16, 5, **layer)
        self.fc1 = qnn.QuantLinear(16 * 5 * 5, 120, **layer)
        self.fc2 = qnn.QuantLinear(120, 84, **layer)
        self.fc3 = qnn.QuantLinear(84, classes, bias=False, **layer)
        self.relu1, self.relu2 = qnn.QuantReLU(**relu), qnn.QuantReLU(**relu)
        self.relu3, self.relu4 = qnn.QuantReLU(**relu), qnn.QuantReLU(**relu)
