"""Code in place, as residual networks are often written: every target takes it, and gives what the model gives."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.export import export
from quant_core.quant import (
    Int8ActPerTensorFixedPoint,
    Int8BiasPerTensorFixedPointInternalScaling,
    Int8WeightPerTensorFixedPoint,
)

LAYER = {"weight_quant": Int8WeightPerTensorFixedPoint, "bias_quant": Int8BiasPerTensorFixedPointInternalScaling}


class Residual(nn.Module):
    """Quantized before each function that changes its operand, and after the last."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = qnn.QuantIdentity(Int8ActPerTensorFixedPoint)
        self.conv1 = qnn.QuantConv2d(4, 4, 3, padding=1, output_quant=Int8ActPerTensorFixedPoint, **LAYER)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = qnn.QuantConv2d(4, 4, 3, padding=1, output_quant=self.levels.act_quant, **LAYER)

    def forward(self, x: Tensor) -> Tensor:
        x = self.levels(x)
        out = self.conv2(self.relu(self.conv1(x)))
        out += x
        return F.relu_(self.levels(out)).flatten(1)


@pytest.mark.parametrize("target", ["dpuv2", "finn", "integers", "pt2e", "qcdq", "torchq"])
def test_every_target_takes_code_in_place(target: str) -> None:
    torch.manual_seed(0)
    net, x = Residual(), torch.randn(2, 4, 6, 6)
    net(x)
    verification = export(net.eval(), (x,), target=target).verification
    assert verification is not None
    assert verification.equal
    assert verification.compared > 0


def test_a_view_behind_a_convolution_that_torch_lays_out_with_channels_last() -> None:
    class Signs(nn.Module):
        """Flattened without a copy, in the model."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = qnn.QuantConv2d(
                1, 8, 3, input_quant=Int8ActPerTensorFixedPoint, output_quant=Int8ActPerTensorFixedPoint, **LAYER
            )

        def forward(self, x: Tensor) -> Tensor:
            return torch.sign(self.conv(x)).view(x.shape[0], -1)

    torch.manual_seed(0)
    net, x = Signs(), torch.randn(2, 1, 6, 6)
    net(x)
    verification = export(net.eval(), (x,), target="torchq").verification
    assert verification is not None
    assert verification.equal
