"""`quant calibrate` with data from numpy: what it writes is what calibrating in Python gives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

import quant_nn as qnn
from quant_core.cli.main import quant

NET = """
import quant_nn as qnn
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = qnn.QuantIdentity(), qnn.QuantReLU()

    def forward(self, x, y):
        return self.second(self.first(x) + y)


def one():
    return nn.Sequential(qnn.QuantIdentity(), qnn.QuantLinear(6, 2), qnn.QuantReLU())
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(quant, ["calibrate", *arguments], catch_exceptions=False)


def model() -> torch.nn.Module:
    scope: dict[str, object] = {}
    exec(NET, scope)
    torch.manual_seed(0)
    made: torch.nn.Module = scope["one"]()
    return made


def test_it_writes_what_python_gives() -> None:
    data = np.random.default_rng(0).standard_normal((50, 6), dtype=np.float32)
    np.savez("data.npz", data)
    net = model()
    torch.save(net.state_dict(), "net.pt")
    done = run("net.py:one", "--weights", "net.pt", "--data", "data.npz", "--batch-size", "20", "-o", "out.pt")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[0] == "calibrated with 'auto'; batches: 3, quantizers: 2"
    qnn.calibrate(net, [torch.from_numpy(data)])
    written = torch.load("out.pt", weights_only=True)
    assert all(torch.equal(written[key], tensor) for key, tensor in net.state_dict().items())
    again = run("net.py:one", "--weights", "out.pt", "--data", "data.npz", "-o", "out.pt")
    assert again.exit_code == 1
    assert again.stderr.startswith("StateError: the model is calibrated already\n  at 0.act_quant, 2.act_quant\n")
    assert run("net.py:one", "--weights", "out.pt", "--data", "data.npz", "-o", "out.pt", "--again").exit_code == 0


@pytest.mark.parametrize("names", [(), ("x", "y")])
def test_several_arrays_are_several_inputs(names: tuple[str, ...]) -> None:
    x, y = np.ones((4, 3), np.float32), np.full((4, 3), 2.0, np.float32)
    np.savez("data.npz", **dict(zip(names, (x, y), strict=True))) if names else np.savez("data.npz", x, y)
    done = run("net.py:Net", "--data", "data.npz", "--method", "max", "-o", "out.pt", "--json")
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert [(row["name"], row["threshold"]) for row in found["quantizers"]] == [
        ("first.act_quant", [1.0]),
        ("second.act_quant", [3.0]),
    ]


def test_options_of_the_method() -> None:
    np.savez("data.npz", np.ones((4, 6), np.float32))
    arguments = ("net.py:one", "--data", "data.npz", "-o", "out.pt", "--method", "percentile")
    assert run(*arguments, "--option", "percentile=50").exit_code == 0
    assert run(*arguments, "--option", "percent=50").stderr.startswith(
        "UnusedAttributeError: the method 'percentile' has no option 'percent'"
    )


def test_bad_files_are_refused() -> None:
    Path("data.npz").write_text("no archive")
    done = run("net.py:one", "--data", "data.npz", "-o", "out.pt")
    assert (done.exit_code, done.stderr.splitlines()[0]) == (2, "LoadError: 'data.npz' cannot be read")
    np.savez("data.npz", np.ones((4, 6)), np.ones((3, 6)))
    done = run("net.py:one", "--data", "data.npz", "-o", "out.pt")
    assert done.exit_code == 2
    assert done.stderr == (
        "ArgumentError: 'data.npz' holds no samples that fit each other\n"
        "  at --data\n"
        "  axis 0 of every array counts samples, and they are arr_0: 4, arr_1: 3\n"
        "  Save arrays with as many samples each, for example numpy.savez('data.npz', images).\n"
    )
