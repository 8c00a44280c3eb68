"""Layers with a weight and quantizers of activations, at many bit widths and each granularity, in both forms of standard ONNX.

All of them are branches of one network, so that there is one file and one session for each row of the matrix. The bit widths of
layers go round: each branch has another one in each row.
"""

from __future__ import annotations

import itertools
from typing import Any, Final

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.export import capture, lower, verify
from quant_nn.samples import SAMPLES, SampleNet

NAMES = [name for name, sample in SAMPLES.items() if sample.family == "weight" and sample.layer.startswith("QuantConv")]
NAMES += ["QuantLinear", "QuantLinear, three axes", "QuantEmbedding"]
WITHOUT_GROUPS: Final = ("QuantConv2d, depthwise",)
"""Their weights have one input channel."""
WIDTHS: Final = (2, 3, 4, 5, 6, 8, 12, 16)
GRANULARITIES: Final[dict[str, dict[str, Any]]] = {
    "per_tensor": {},
    "per_channel": {"weight_scaling_per_output_channel": True},
    "per_group": {"weight_group_size": 2},
}


class Branches(nn.Module):
    """Every sample with a weight, each on its own inputs behind a quantizer."""

    def __init__(self, names: list[str], first: int, options: dict[str, Any]) -> None:
        super().__init__()
        self.names = names
        self.branches = nn.ModuleList(SampleNet(SAMPLES[name], quantized=True) for name in names)
        for index, (name, branch) in enumerate(zip(names, self.branches, strict=True)):
            width = {"weight_bit_width": WIDTHS[(first + index) % len(WIDTHS)]}
            bias = (
                {} if "weight_group_size" in options else SAMPLES[name].on_accumulator
            )  # groups have no one accumulator
            branch.layer = SAMPLES[name].build(**bias, **width, **options)

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        given = iter(inputs)
        return [
            branch(*(next(given) for _ in SAMPLES[name].shapes))
            for name, branch in zip(self.names, self.branches, strict=True)
        ]


def optimized(content: bytes, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """What onnxruntime gives with all optimizations; those that quantize what the file leaves in floats are off."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    options.add_session_config_entry("session.qdqisint8allowed", "1")  # see docs/qcdq.md on linear layers of three axes
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    feed = {value.name: x.numpy() for value, x in zip(session.get_inputs(), inputs, strict=True)}
    return [torch.from_numpy(result) for result in session.run(None, feed)]


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("first", [0, 3])
def test_each_layer_is_exact(granularity: str, first: int) -> None:
    torch.manual_seed(first)
    names = [name for name in NAMES if granularity != "per_group" or name not in WITHOUT_GROUPS]
    net = Branches(names, first, GRANULARITIES[granularity])
    inputs = tuple(x for name in names for x in SAMPLES[name].inputs(7))
    with torch.no_grad():
        net(*inputs)
        net.eval()
        program = capture(net, inputs)
        expected = net(*inputs)
    weights = [quantizer for quantizer in program.quantizers if quantizer.role == "weight"]
    assert granularity in {quantizer.granularity for quantizer in weights} <= {granularity, "per_channel"}
    assert {quantizer.bit_width for quantizer in weights} == set(WIDTHS)
    for target in ("qcdq", "qop"):
        artifact = lower(program, target, opset_version=21)
        assert verify(program, artifact, inputs, reference=expected).equal
        for name, ours, theirs in zip(names, expected, optimized(artifact.content(), inputs), strict=True):
            torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5, msg=lambda text, at=name: f"{at}: {text}")


class Activations(nn.Module):
    """A quantizer of each kind, side by side, and each of their results pooled: a step that integers take too."""

    def __init__(self) -> None:
        super().__init__()
        self.quantizers = nn.ModuleList(
            qnn.QuantIdentity(
                bit_width=bits,
                signed=signed,
                narrow_range=narrow,
                scaling_per_output_channel=channels,
                **({"per_channel_broadcastable_shape": (1, 3, 1, 1)} if channels else {}),
            )
            for bits, signed, narrow, channels in itertools.product(WIDTHS, *[(False, True)] * 3)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        return [nn.functional.max_pool2d(quantizer(x), 2) for quantizer in self.quantizers]


@pytest.mark.parametrize("target", ["qcdq", "qop"])
def test_each_activation_is_exact(target: str) -> None:
    torch.manual_seed(0)
    net, x = Activations(), torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        net(x)
        net.eval()
        program = capture(net, (x,))
        expected = net(2 * x)
    artifact = lower(program, target, opset_version=21)
    report = verify(program, artifact, (2 * x,), reference=expected)
    assert report.equal
    assert report.ties == 0
    for quantizer, ours, theirs in zip(net.quantizers, expected, optimized(artifact.content(), (2 * x,)), strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-6, atol=0, msg=lambda text, at=quantizer: f"{at}: {text}")
