"""What onnxruntime makes of the file when it optimizes: integer kernels that agree with the model to one step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.components import ConstScaling
from quant_core.export import capture, lower
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


class FloatBias(nn.Module):
    """A convolution with a float bias and scales that are powers of two: no sum of products rounds."""

    def __init__(self) -> None:
        super().__init__()
        power_of_two: dict[str, Any] = {"scaling_impl": ConstScaling, "return_quant_tensor": True}
        self.entry = qnn.QuantIdentity(scaling_init=1.0, **power_of_two)  # steps of 1/128
        self.conv = qnn.QuantConv2d(3, 8, 3, weight_scaling_impl=ConstScaling, weight_scaling_init=127 / 4)
        self.exit = qnn.QuantIdentity(scaling_init=1.0, **power_of_two)  # four steps of the accumulator
        nn.init.uniform_(self.conv.weight, -1, 1)
        nn.init.uniform_(self.conv.bias, -0.1, 0.1)

    @property
    def accumulator(self) -> float:
        """The scale of its sums."""
        return float(self.entry.act_quant.scale() * self.conv.quant_weight().scale)

    def forward(self, x: Tensor) -> Tensor:
        return self.exit(self.conv(self.entry(x))).value


def small_images() -> Tensor:
    """A few steps of the entry, so that few results are cut off."""
    return torch.randint(-3, 4, (64, 3, 6, 6), generator=torch.Generator().manual_seed(12)) / 128


def test_a_float_bias_is_rounded_to_the_accumulator_when_onnxruntime_fuses_it(
    write: Callable[..., Any], open_session: Callable[..., Any], tmp_path: Path
) -> None:
    torch.manual_seed(11)
    net, x = FloatBias().eval(), small_images()
    bias = net.conv.bias.detach().clone()
    step = net.accumulator
    level = net.exit.act_quant.scale().item()
    assert level == 4 * step
    file = write(net, x)
    (plain,) = file.outputs(x)
    np.testing.assert_array_equal(plain, net(x).detach().numpy())  # without optimizations nothing is rounded

    saved = tmp_path / "optimized.onnx"
    open_session(file.onnx, EVERYTHING, str(saved))
    optimized = onnx.load(saved)
    (conv,) = (node for node in optimized.graph.node if node.op_type == "QLinearConv")
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in optimized.graph.initializer}
    assert constants[conv.input[8]].dtype == np.int32
    rounded = torch.tensor(constants[conv.input[8]] * step)
    moved = rounded - bias
    assert 0 < moved.abs().max() <= step / 2  # the bound that the documentation gives

    (fused,) = file.outputs(x, optimized=True)
    assert np.abs(fused - plain).max() == level  # half a step of a sum is one level at most when the sum is rounded
    with torch.no_grad():
        net.conv.bias.copy_(rounded)
    np.testing.assert_array_equal(fused, net(x).detach().numpy())  # and nothing else differs


def test_qop_never_rounds_a_float_bias() -> None:
    torch.manual_seed(11)
    net, x = FloatBias().eval(), small_images()
    content = lower(capture(net, (x,)), "qop").content()
    for level in (onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL, EVERYTHING):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = level
        options.log_severity_level = 3
        (given,) = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"]).run(
            None, {"x": x.numpy()}
        )
        np.testing.assert_array_equal(given, net(x).detach().numpy())
