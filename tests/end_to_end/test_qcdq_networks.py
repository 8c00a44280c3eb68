"""Networks of 8 bits in onnxruntime: integers only where it computes, and small files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import quant_nn as qnn
from quant_core.components import ConstScaling
from quant_core.export import capture, lower
from quant_core.quant import Int32Bias

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def benchmark() -> Any:
    """The benchmark whose networks these are."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import onnx_cpu

        yield onnx_cpu
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
        for name in ("onnx_cpu", "models"):
            sys.modules.pop(name, None)


@pytest.mark.parametrize("network", ["ResNet-8", "MobileNetV1"])
def test_no_convolution_in_floats_is_left_and_files_are_a_quarter(benchmark: Any, network: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 32, 32)
    build = benchmark.NETWORKS[network]
    whole = benchmark.float_file(build, x)
    assert benchmark.float_convolutions(whole) > 0
    for form, content in benchmark.quantized_files(build, x).items():
        counts = benchmark.optimized(content)
        assert counts["Conv"] + counts["FusedConv"] + counts["ConvInteger"] == 0
        assert counts["QLinearConv"] >= 9
        assert len(content) <= (0.272 if "fill" in form else 0.27) * len(whole)


class PowersOfTwo(nn.Module):
    """Two convolutions with a shortcut and a linear layer, whose scales are powers of two: no sum of products rounds."""

    def __init__(self) -> None:
        super().__init__()
        act: dict[str, Any] = {"scaling_impl": ConstScaling, "return_quant_tensor": True}
        layer: dict[str, Any] = {
            "bias_quant": Int32Bias,
            "weight_scaling_impl": ConstScaling,
            "weight_scaling_init": 127 / 256,
        }
        self.entry = qnn.QuantIdentity(scaling_init=1.0, **act)
        self.conv1 = qnn.QuantConv2d(3, 8, 3, padding=1, **layer)
        self.relu = qnn.QuantReLU(scaling_init=255 / 128, **act)
        self.conv2 = qnn.QuantConv2d(8, 8, 3, padding=1, groups=2, **layer)
        self.exit = qnn.QuantIdentity(scaling_init=2.0, **act)
        self.pool = nn.MaxPool2d(2)
        self.fc = qnn.QuantLinear(8 * 16, 5, **layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.relu(self.conv1(self.entry(x)))
        second = self.exit(self.conv2(first))
        return self.fc(torch.flatten(self.pool(second), 1))


@pytest.mark.parametrize("target", ["qcdq", "qop"])
def test_integer_biases_give_equal_bits_at_every_optimization(benchmark: Any, target: str) -> None:
    torch.manual_seed(3)
    net, x = PowersOfTwo().eval(), torch.randn(16, 3, 8, 8)
    artifact = lower(capture(net, (x,), dynamic_shapes="batch"), target)
    expected = net(x).detach()
    assert torch.equal(artifact.run(x), expected)
    (optimized,) = benchmark.session(artifact.content()).run(None, {"x": x.numpy()})
    assert torch.equal(torch.from_numpy(optimized), expected)
