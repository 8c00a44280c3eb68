"""What onnxruntime makes of the file when it optimizes: integer kernels that agree with the model to one step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.quant import Int32Bias

EVERYTHING = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL


class ConvNet(nn.Module):
    """Two convolutions between quantized activations."""

    def __init__(self, weight_bits: int, channels: bool) -> None:
        super().__init__()
        options: dict[str, Any] = {
            "weight_bit_width": weight_bits,
            "weight_scaling_per_output_channel": channels,
            "bias_quant": Int32Bias,
        }
        self.entry = qnn.QuantIdentity(signed=False, return_quant_tensor=True)
        self.conv1 = qnn.QuantConv2d(3, 8, 3, padding=1, **options)
        self.relu1 = qnn.QuantReLU(return_quant_tensor=True)
        self.conv2 = qnn.QuantConv2d(8, 8, 3, **options)
        self.relu2 = qnn.QuantReLU(return_quant_tensor=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu2(self.conv2(self.relu1(self.conv1(self.entry(x))))).value


@pytest.mark.parametrize(("weight_bits", "channels"), [(8, False), (8, True), (4, True)])
def test_convolutions_become_integer_kernels(
    write: Callable[..., Any], open_session: Callable[..., Any], tmp_path: Path, weight_bits: int, channels: bool
) -> None:
    torch.manual_seed(7)
    net, x = ConvNet(weight_bits, channels), torch.rand(4, 3, 10, 10)
    net(x)
    file = write(net, x)
    saved = tmp_path / "optimized.onnx"
    open_session(file.onnx, EVERYTHING, str(saved))
    kinds = [node.op_type for node in onnx.load(saved).graph.node]
    assert kinds.count("QLinearConv") == 2
    assert "Conv" not in kinds

    (optimized,) = file.outputs(x, optimized=True)
    step = net.relu2.act_quant.scale().item()
    differences = (torch.from_numpy(optimized) - net(x)).abs() / step
    assert differences.max() <= 1.001
    assert (differences > 0.5).float().mean() < 0.01


def test_optimization_keeps_a_network_at_four_bits(lenet: Any, images: Tensor) -> None:
    (plain,), (optimized,) = lenet.outputs(images), lenet.outputs(images, optimized=True)
    assert (plain.argmax(1) == optimized.argmax(1)).all()
