"""The report over several packages: recurrent layers, pictures, and the captured program."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import quant_nn as qnn
import quant_rnn as qrnn
from quant_core.cli.main import quant
from quant_core.errors import InputError
from quant_core.export import capture, lower
from quant_core.integers import IntegerArtifact
from quant_core.quant import Int8ActPerTensorFloat, Int32Bias
from quant_nn.report import plot, summary


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers_count_as_those_of_torch(kind: str) -> None:
    options = {"num_layers": 2, "bidirectional": True}
    float_layer = getattr(nn, kind)(5, 7, **options)
    layer = getattr(qrnn, f"Quant{kind}")(5, 7, weight_bit_width=4, io_quant=Int8ActPerTensorFloat, **options)
    x = torch.randn(11, 2, 5)
    layer(x)
    ours, theirs = summary(layer, x).rows, summary(float_layer, x).rows
    assert len(ours) == len(theirs) == 1
    assert ours[0].macs == theirs[0].macs
    assert ours[0].parameters == theirs[0].parameters
    assert (ours[0].weight_bits, ours[0].input_bits) == (4, 8)
    assert ours[0].bops == 4 * 8 * theirs[0].macs


def test_accumulators_are_those_of_the_integers() -> None:
    """Two ways to the same number: from the layers as they run, and from the captured program."""
    torch.manual_seed(0)
    options = {"bias_quant": Int32Bias, "weight_bit_width": 5, "return_quant_tensor": True}
    net = nn.Sequential(
        qnn.QuantIdentity(return_quant_tensor=True),
        qnn.QuantConv2d(2, 4, 3, padding=1, weight_scaling_per_output_channel=True, **options),
        qnn.QuantReLU(bit_width=6, return_quant_tensor=True),
        nn.Flatten(),
        qnn.QuantLinear(4 * 25, 3, **options),
    )
    x = torch.randn(4, 2, 5, 5)
    net(x)
    net.eval()
    report = summary(net, x)
    artifact = lower(capture(net, (x,)), "integers")
    assert isinstance(artifact, IntegerArtifact)
    bits = {step.module: step.result["bits"] for step in artifact.network.plan.steps if step.op.startswith("aten.")}
    assert {path: report.row(path).accumulator_bits for path in ("1", "4")} == {path: bits[path] for path in ("1", "4")}


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_picture_is_drawn(suffix: str, tmp_path: Path) -> None:
    net = nn.Sequential(qnn.QuantReLU(bit_width=4), qnn.QuantLinear(8, 3))
    path = plot(summary(net, torch.randn(4, 8)), tmp_path / f"net{suffix}")
    start = path.read_bytes()[:200]
    assert start.startswith(b"\x89PNG") if suffix == ".png" else b"<?xml" in start


def test_the_command_draws(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("import quant_nn as qnn\ndef net():\n    return qnn.QuantLinear(4, 2)\n")
    arguments = ["summary", f"{tmp_path}/net.py:net", "--input", "1x4", "--plot", str(tmp_path / "net.svg")]
    done = CliRunner().invoke(quant, arguments)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "net.svg").exists()


@pytest.mark.parametrize(
    "run",
    [
        lambda net, x: summary(net, x),
        lambda net, x: qnn.calibrate(net, [x, x]),
        lambda net, x: qnn.calibrate(net, x),
        lambda net, x: qnn.calibrate(net, [{"input": x}]),
        lambda net, x: net(x),
    ],
    ids=["summary", "calibrate", "one array of batches", "keywords", "call"],
)
def test_arrays_of_numpy_are_no_inputs(run: Callable[[nn.Module, Any], object]) -> None:
    net = nn.Sequential(qnn.QuantIdentity(), qnn.QuantLinear(4, 2))
    with pytest.raises(InputError) as caught:
        run(net, np.ones((3, 2, 4), np.float32))
    assert str(caught.value) == (
        "the input is a ndarray, not a tensor\n"
        "  at 0 (QuantIdentity)\n"
        "  this layer takes one tensor of torch\n"
        "  Convert it before: torch.from_numpy(x) of an array, torch.tensor(x) of a number."
    )
