"""Each layer with a weight, at several bit widths and granularities, in both forms of standard ONNX.

All layers are branches of one network, so that there is one file and one session for each row of the matrix.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from quant_core.export import capture, lower, verify
from quant_nn.samples import SAMPLES, SampleNet

NAMES = [name for name, sample in SAMPLES.items() if sample.family == "weight" and sample.layer.startswith("QuantConv")]
NAMES += ["QuantLinear", "QuantLinear, three axes", "QuantEmbedding"]


class Branches(nn.Module):
    """Every sample with a weight, each on its own inputs behind a quantizer."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.branches = nn.ModuleList(SampleNet(SAMPLES[name], quantized=True) for name in NAMES)
        for name, branch in zip(NAMES, self.branches, strict=True):
            branch.layer = SAMPLES[name].build(**SAMPLES[name].on_accumulator, **options)

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        given = iter(inputs)
        return [
            branch(*(next(given) for _ in SAMPLES[name].shapes))
            for name, branch in zip(NAMES, self.branches, strict=True)
        ]


@pytest.mark.parametrize(("bits", "channels"), [(2, False), (3, True), (8, False), (8, True), (12, True)])
def test_each_layer_is_exact(bits: int, channels: bool) -> None:
    torch.manual_seed(bits)
    net = Branches(weight_bit_width=bits, weight_scaling_per_output_channel=channels)
    inputs = tuple(x for name in NAMES for x in SAMPLES[name].inputs(7))
    with torch.no_grad():
        net(*inputs)
        net.eval()
        program = capture(net, inputs)
        expected = net(*inputs)
    for target in ("qcdq", "qop"):
        artifact = lower(program, target, opset_version=21)
        assert verify(program, artifact, inputs, reference=expected).equal
