"""The `quant` command with our own layers and targets: a trained network, its weights, a file that equals it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner, Result

from quant_core.cli.main import quant

NET = """
import quant_nn as qnn
from quant_core.quant import Int8Bias
from torch import nn


def net(bits=4):
    return nn.Sequential(
        qnn.QuantIdentity(return_quant_tensor=True),
        qnn.QuantConv2d(1, 4, 3, weight_bit_width=bits, bias_quant=Int8Bias),
        qnn.QuantReLU(bit_width=bits, return_quant_tensor=True),
        nn.Flatten(),
        qnn.QuantLinear(4 * 36, 3, weight_bit_width=bits, bias_quant=Int8Bias),
    )


def wide():
    return net(9)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(quant, ["export", "qcdq", *arguments], catch_exceptions=False)


def trained() -> torch.nn.Module:
    scope: dict[str, object] = {}
    exec(NET, scope)
    torch.manual_seed(0)
    model = scope["net"]()
    for _ in range(3):
        model(torch.randn(8, 1, 8, 8))
    torch.save(model.state_dict(), "net.pt")
    return model.eval()


def test_trained_weights_become_a_file_that_equals_the_model(folder: Path) -> None:
    model = trained()
    result = run(
        "net.py:net", "--weights", "net.pt", "--input", "4x1x8x8", "--dynamic-batch", "-o", "net.onnx", "--json"
    )
    done = json.loads(result.stdout)
    assert (result.exit_code, done["verified"], done["uncalibrated"]) == (0, True, [])
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession("net.onnx", options)
    x = torch.randn(7, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert np.allclose(found, model(x).detach().numpy(), atol=1e-5)


def test_quantizers_that_have_seen_no_data_are_noted(folder: Path) -> None:
    result = run("net.py:net", "--input", "4x1x8x8", "-o", "net.onnx")
    assert result.exit_code == 0
    assert result.stderr == (
        "Note: these activation quantizers have seen no data, so that their scales are the ones they start from: "
        "0.act_quant, 2.act_quant. Train, or load weights that hold scales (--weights).\n"
    )


def test_a_refusal_is_told_and_writes_nothing(folder: Path) -> None:
    result = run("net.py:wide", "--input", "4x1x8x8", "-o", "net.onnx")
    assert result.exit_code == 1
    assert result.stderr.startswith(
        "UnsupportedError: target 'qcdq' cannot lower quant::int with bit_width=9\n  at 1.weight"
    )
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == ["net.py"]
