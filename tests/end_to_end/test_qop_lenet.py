"""The network of mixed float and quantized layers, as it is described for standard ONNX: each combination of its options runs."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.export import capture, check, lower, verify
from quant_core.quant import (
    Int8Bias,
    Int8WeightPerTensorFloat,
    ShiftedUint8ActPerTensorFloat,
    ShiftedUint8WeightPerTensorFloat,
)


class ReducedRangeActQuant(ShiftedUint8ActPerTensorFloat):
    """Activations of 7 bits, so that sums of products of two do not saturate."""

    bit_width = 7


class MixedFloatQuantLeNet(nn.Module):
    """Two convolutions and a linear layer on integers, and two linear layers in floats; ReLUs and pools are those of torch."""

    def __init__(self, *, bias_quant: bool, reduced_act_quant: bool, weight_signed: bool) -> None:
        super().__init__()
        act = ReducedRangeActQuant if reduced_act_quant else ShiftedUint8ActPerTensorFloat
        layer: dict[str, Any] = {
            "weight_quant": Int8WeightPerTensorFloat if weight_signed else ShiftedUint8WeightPerTensorFloat,
            "bias_quant": Int8Bias if bias_quant else None,
            "output_quant": act,
        }
        self.conv1 = qnn.QuantConv2d(3, 6, 5, input_quant=act, return_quant_tensor=True, **layer)
        self.relu1 = nn.ReLU()
        self.conv2 = qnn.QuantConv2d(6, 16, 5, return_quant_tensor=True, **layer)
        self.relu2 = nn.ReLU()
        self.fc1 = qnn.QuantLinear(16 * 5 * 5, 120, bias=True, **layer)
        self.relu3 = nn.ReLU()
        self.fc2 = nn.Linear(120, 84, bias=True)
        self.relu4 = nn.ReLU()
        self.fc3 = nn.Linear(84, 10, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = F.max_pool2d(self.relu1(self.conv1(x)), 2)
        out = F.max_pool2d(self.relu2(self.conv2(out)), 2)
        out = self.relu3(self.fc1(out.reshape(out.shape[0], -1)))
        return self.fc3(self.relu4(self.fc2(out)))


COMBINATIONS = [
    dict(zip(("bias_quant", "reduced_act_quant", "weight_signed"), values, strict=True))
    for values in itertools.product((False, True), repeat=3)
]


def session(content: bytes, level: onnxruntime.GraphOptimizationLevel) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("options", COMBINATIONS, ids=lambda one: " ".join(word for word in one if one[word]) or "none")
def test_each_combination_runs_in_integers_and_equals_the_model(options: dict[str, bool]) -> None:
    torch.manual_seed(0)
    net, x = MixedFloatQuantLeNet(**options), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        net(x), net(x)
        net.eval()
        program = capture(net, (x,), dynamic_shapes="batch")
        expected = net(x)
    assert check(program, "qop").ok
    artifact = lower(program, "qop")
    report = verify(program, artifact, (x,), reference=expected)
    assert report.equal
    kinds = [node.op_type for node in onnx.load_from_string(artifact.content()).graph.node]
    assert kinds.count("QLinearConv" if options["bias_quant"] else "ConvInteger") == 2
    assert kinds.count("MatMulInteger") == 1
    assert "Conv" not in kinds
    assert kinds.count("Gemm") + kinds.count("MatMul") == 2  # the layers in floats
    assert (
        kinds.count("QuantizeLinear") == (1 if options["bias_quant"] else 3) + 1
    )  # fc1 has a bias, and is rounded after it
    levels = onnxruntime.GraphOptimizationLevel
    plain, optimized = (
        session(artifact.content(), level).run(None, {"x": x.numpy()})[0]
        for level in (levels.ORT_DISABLE_ALL, levels.ORT_ENABLE_ALL)
    )
    np.testing.assert_allclose(optimized, plain, rtol=0, atol=1e-6)
    if report.ties == 0:  # a value on the border between two levels moves all that comes after it
        np.testing.assert_allclose(plain, expected.numpy(), rtol=0, atol=1e-5)
    assert report.ties <= 2
