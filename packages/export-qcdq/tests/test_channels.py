"""The option fill_channels: more channels, the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.components import ConstScaling
from quant_core.errors import ConfigurationError
from quant_core.export import capture, lower, verify
from quant_core.quant import (
    Int8ActPerTensorFloat,
    Int32Bias,
    ShiftedUint8ActPerTensorFloat,
    ShiftedUint8WeightPerTensorFloat,
)

POWER_OF_TWO: dict[str, Any] = {"weight_scaling_impl": ConstScaling, "weight_scaling_init": 127 / 256}


class Entries(nn.Module):
    """Quantizers of an image, each read by convolutions."""

    def __init__(self) -> None:
        super().__init__()
        const: dict[str, Any] = {"scaling_impl": ConstScaling, "return_quant_tensor": True}
        layer: dict[str, Any] = {**POWER_OF_TWO, "bias_quant": Int32Bias}
        self.image = qnn.QuantIdentity(scaling_init=4.0, **const)
        self.twice = nn.ModuleList(qnn.QuantConv2d(3, 8, 3, padding=padding, **layer) for padding in (0, 1))
        self.narrow = qnn.QuantIdentity(scaling_init=2.0, narrow_range=True, bit_width=6, **const)
        self.one = qnn.QuantConv2d(3, 4, (1, 3), stride=2, **layer)
        self.other = qnn.QuantIdentity(scaling_init=1.0, **const)
        self.read_twice = qnn.QuantConv2d(3, 4, 3, **layer)
        self.ends = nn.ModuleList(qnn.QuantIdentity(scaling_init=8.0, **const) for _ in range(4))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        image, other = self.image(x), self.other(x)
        sums = [*(conv(image) for conv in self.twice), self.one(self.narrow(x)), self.read_twice(other)]
        return (*(end(one).value for end, one in zip(self.ends, sums, strict=True)), other.value)


def results(content: bytes, x: Tensor, level: str) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x.numpy()})


@pytest.mark.parametrize("target", ["qcdq", "qop"])
def test_more_channels_are_the_same_bits(target: str) -> None:
    torch.manual_seed(0)
    net, x = Entries().eval(), torch.randn(2, 3, 8, 8)
    program = capture(net, (x,), dynamic_shapes="batch")
    plain, filled = (lower(program, target, fill_channels=fill) for fill in (False, True))
    report = verify(program, filled, (x,), reference=net(x))
    assert report.equal
    assert report.ties == 0
    for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL"):
        for one, other in zip(results(plain.content(), x, level), results(filled.content(), x, level), strict=True):
            np.testing.assert_array_equal(one, other)
    model = onnx.load_from_string(filled.content())
    onnx.checker.check_model(model, full_check=True)
    channels = {t.name: t.dims[1] for t in model.graph.initializer if t.name.endswith(".weight")}
    assert channels == {"twice.0.weight": 4, "twice.1.weight": 4, "one.weight": 4, "read_twice.weight": 3}
    assert sum(node.op_type == "Pad" for node in model.graph.node) == {"qcdq": 2, "qop": 3}[target]


@pytest.mark.parametrize("target", ["qcdq", "qop"])
def test_zero_points_are_filled_with_themselves(target: str) -> None:
    torch.manual_seed(0)
    act = ShiftedUint8ActPerTensorFloat
    net = nn.Sequential(
        qnn.QuantConv1d(
            5,
            4,
            3,
            input_quant=act,
            weight_quant=ShiftedUint8WeightPerTensorFloat,
            bias_quant=Int32Bias,
            output_quant=act,
        ),
        nn.ReLU(),
    )
    x = torch.randn(4, 5, 20) + 0.5
    net(x)
    program = capture(net.eval(), (x,))
    artifact = lower(program, target, fill_channels=True)
    assert verify(program, artifact, (x,), reference=net(x)).equal
    (weight,) = (t for t in onnx.load_from_string(artifact.content()).graph.initializer if t.name == "0.weight")
    assert list(weight.dims) == [4, 8, 3]


class NothingToFill(nn.Module):
    """Layers that have enough channels, or read no quantizer."""

    def __init__(self) -> None:
        super().__init__()
        entry: dict[str, Any] = {"input_quant": Int8ActPerTensorFloat}
        self.four = qnn.QuantConv2d(4, 4, 3, **entry)
        self.depthwise = qnn.QuantConv2d(3, 3, 3, groups=3, **entry)
        self.of_floats = qnn.QuantConv2d(3, 4, 3)
        self.transposed = qnn.QuantConvTranspose2d(3, 4, 3, **entry)
        self.quantizer = qnn.QuantIdentity()
        self.after_tanh = qnn.QuantConv2d(3, 4, 3)
        self.linear = qnn.QuantLinear(5, 4, **entry)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        four = self.four(torch.cat([x, x[:, :1]], 1))
        after = self.after_tanh(torch.tanh(self.quantizer(x)))
        return four, self.depthwise(x), self.of_floats(x), self.transposed(x), after, self.linear(x)


@pytest.mark.parametrize("target", ["qcdq", "qop"])
def test_what_has_nothing_to_fill_stays(target: str) -> None:
    net, x = NothingToFill(), torch.randn(2, 3, 5, 5)
    net(x)
    program = capture(net.eval(), (x,))
    plain, filled = (onnx.load_from_string(lower(program, target, fill_channels=f).content()) for f in (False, True))
    assert filled.graph == plain.graph


def test_the_option_is_a_truth_value() -> None:
    program = capture(nn.ReLU(), (torch.zeros(2),))
    for target in ("qcdq", "qop"):
        with pytest.raises(ConfigurationError) as caught:
            lower(program, target, fill_channels=4)
        assert str(caught.value) == (
            "fill_channels=4 is not a truth value\n  it is True or False, got a int\n"
            "  Write fill_channels=True or fill_channels=False."
        )
