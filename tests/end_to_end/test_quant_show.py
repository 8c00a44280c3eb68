"""``quant show``: what the file of each ONNX target says of its quantization, as a table and as data."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

import quant_nn as qnn
from quant_core.cli.main import quant
from quant_core.export import export
from quant_core.quant import Int8ActPerTensorFixedPoint, Int8Bias, Int8WeightPerTensorFixedPoint


def run(*args: str) -> Result:
    return CliRunner().invoke(quant, list(args), prog_name="quant")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One network as each target writes it."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("files")
    fixed: dict[str, Any] = {"weight_quant": Int8WeightPerTensorFixedPoint, "bias_quant": Int8Bias}
    entry = qnn.QuantIdentity(Int8ActPerTensorFixedPoint, return_quant_tensor=True)
    convolution = qnn.QuantConv2d(2, 3, 3, weight_bit_width=4, **fixed)
    net = nn.Sequential(entry, convolution, qnn.QuantIdentity(Int8ActPerTensorFixedPoint, bit_width=8))
    x = torch.randn(2, 2, 6, 6)
    net(x)
    for target in ("qcdq", "qop", "qonnx", "finn", "dpuv2"):
        export(net.eval(), (x,), target=target, path=folder / f"{target}.onnx", verify=False)
    return folder


def shown(path: Path) -> list[dict[str, Any]]:
    done = run("show", str(path), "--json")
    assert done.exit_code == 0, done.output
    tensors: list[dict[str, Any]] = json.loads(done.stdout)["tensors"]
    return tensors


EXPECTED = {
    "qcdq": [
        ("1.weight/DQ", "weight", "int8", 4),
        ("1.bias/DQ", "bias", "int32", 8),
        ("0/Q", "output", "int8", 8),
    ],
    "qop": [("1/QLinearConv", "weight", "int8", 4), ("1/QLinearConv", "output", "uint8", 8)],
    "qonnx": [("1.weight_quant/Quant", "weight", "int4", 4), ("2.act_quant/Quant", "output", "int8", 8)],
    "finn": [("1/Conv", "weight", "int4", 4), ("2.act_quant/MultiThreshold", "output", "int8", 8)],
    "dpuv2": [("1/Conv", "weight", "int4", 4), ("1/Conv", "output", "int8", 8)],
}


@pytest.mark.parametrize("target", EXPECTED)
def test_each_target_shows_its_tensors(files: Path, target: str) -> None:
    rows = [(row["node"], row["tensor"], row["type"], row["bits"]) for row in shown(files / f"{target}.onnx")]
    for row in EXPECTED[target]:
        assert row in rows


def test_scales_and_arithmetic_are_those_of_the_file(files: Path) -> None:
    by_target = {target: shown(files / f"{target}.onnx") for target in ("qcdq", "qop", "dpuv2")}
    scales = {
        target: next(row["scale"] for row in rows if row["tensor"] == "weight") for target, rows in by_target.items()
    }
    assert scales["qcdq"] == scales["qop"] == scales["dpuv2"]
    assert {row["arithmetic"] for row in by_target["qcdq"] if row["op"] == "Conv"} == {"float"}
    assert {row["arithmetic"] for row in by_target["qop"] if row["op"] == "QLinearConv"} == {"integer"}
    assert {row["arithmetic"] for row in by_target["dpuv2"]} == {"integer"}
    back = [row for row in by_target["qcdq"] if row["node"] in ("0/DQ", "2/DQ")]
    assert [(row["type"], row["bits"], row["arithmetic"]) for row in back] == [("float", None, "float")] * 2


def test_the_table(files: Path) -> None:
    lines = run("show", str(files / "qop.onnx")).output.splitlines()
    assert lines[0].split() == ["node", "operator", "tensor", "type", "bits", "scale", "zero-point", "computes", "on"]
    (weight,) = [line.split() for line in lines if " weight " in line]
    assert [*weight[:5], *weight[6:]] == ["1/QLinearConv", "QLinearConv", "weight", "int8", "4", "0", "integers"]


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, empty, missing = tmp_path / "text.onnx", tmp_path / "empty.onnx", tmp_path / "missing.onnx"
    text.write_text("no graph here")
    empty.write_bytes(b"")
    reasons = {
        text: "it is not an ONNX file that can be read: DecodeError",
        empty: "it holds no graph",
        missing: "there is no such file",
        tmp_path: "it is a directory",
    }
    for path, reason in reasons.items():
        done = run("show", str(path))
        assert (done.exit_code, done.stdout) == (2, "")
        assert done.stderr == (
            f"LoadError: cannot read {path.name!r}\n  at {path}\n  {reason}\n  Give the path of a .onnx file.\n"
        )
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert run("show", str(text)).stderr == (
        f"LoadError: cannot read 'text.onnx'\n  at {text}\n  onnx is not installed\n  Install it: pip install onnx\n"
    )
