"""`quant calibrate` with data from numpy: what it writes is what calibrating in Python gives."""

from __future__ import annotations

import json
from collections.abc import Callable
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


def test_several_files_are_gone_through_one_after_the_other() -> None:
    x = np.random.default_rng(0).standard_normal((70, 6), dtype=np.float32)
    np.savez("a.npz", x[:30])
    np.savez("b.npz", x[30:] * 10)
    data = ("--data", "a.npz", "--data", "b.npz")
    done = run("net.py:one", *data, "--method", "max", "--batch-size", "16", "-o", "out.pt", "--json")
    found = json.loads(done.stdout)
    assert found["batches"] == 2 + 3
    assert found["quantizers"][0]["threshold"] == [pytest.approx(np.abs(10 * x[30:]).max())]
    assert found["quantizers"][0]["elements"] == 70 * 6
    np.savez("b.npz", x=x, y=x)
    done = run("net.py:one", *data, "-o", "out.pt")
    assert (done.exit_code, done.stderr) == (
        2,
        "ArgumentError: 'b.npz' holds other inputs than 'a.npz'\n"
        "  at --data\n"
        "  its arrays are x, y, and those of the first file arr_0\n"
        "  Save the same arrays in each file, under the same names.\n",
    )
    assert run("net.py:one", *data, "-o", "b.npz").stderr.startswith("ArgumentError: --output would overwrite --data\n")


@pytest.mark.parametrize("dtype", ["<f8", ">f4", "f2", "g"])
def test_floats_are_converted_to_the_precision_of_the_model(dtype: str) -> None:
    x = np.random.default_rng(0).standard_normal((20, 6)).astype("f2").astype(dtype)
    np.savez("data.npz", x)
    done = run("net.py:one", "--data", "data.npz", "--method", "max", "-o", "out.pt", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["quantizers"][0]["threshold"] == [float(np.abs(x).max())]


def test_options_of_the_method() -> None:
    np.savez("data.npz", np.ones((4, 6), np.float32))
    arguments = ("net.py:one", "--data", "data.npz", "-o", "out.pt", "--method", "percentile")
    assert run(*arguments, "--option", "percentile=50").exit_code == 0
    assert run(*arguments, "--option", "percent=50").stderr.startswith(
        "UnusedAttributeError: the method 'percentile' has no option 'percent'"
    )
    assert run(*arguments, "--option", "again=true").stderr.startswith(
        "UnusedAttributeError: the method 'percentile' has no option 'again'"
    )
    assert run(*arguments, "--option", "percentile=101").stderr.startswith(
        "ConfigurationError: percentile=101 is not a percentile"
    )


def damaged(keep: int) -> None:
    np.savez("data.npz", np.ones((4, 6)))
    whole = Path("data.npz").read_bytes()
    Path("data.npz").write_bytes(whole[:keep] + bytes(len(whole[keep:])))


def single() -> None:
    with Path("data.npz").open("wb") as file:
        np.save(file, np.ones(3))


@pytest.mark.parametrize(
    ("write", "why"),
    [
        (lambda: Path("data.npz").write_text("no archive"), "ValueError: "),
        (lambda: Path("data.npz").write_text(""), "EOFError: "),
        (lambda: Path("data.npz").mkdir(), "IsADirectoryError: "),
        (lambda: damaged(200), "BadZipFile: "),
        (single, "it holds a single array without a name, as numpy.save writes it"),
        (lambda: torch.save(torch.ones(4, 6), "data.npz"), "it holds what is no array, as torch.save writes it"),
        (lambda: np.savez("data.npz", np.array(["a"])), "arr_0 holds <U1, which are no real numbers"),
        (lambda: np.savez("data.npz", np.array([None])), "ValueError: Object arrays cannot be loaded"),
    ],
)
def test_bad_files_are_refused(write: Callable[[], object], why: str) -> None:
    write()
    done = run("net.py:one", "--data", "data.npz", "-o", "out.pt")
    lines = done.stderr.splitlines()
    assert (done.exit_code, lines[0], lines[1]) == (2, "LoadError: 'data.npz' cannot be read", "  at data.npz")
    assert lines[2].startswith(f"  {why}")
    assert lines[-1] == "  Give a file that numpy.savez wrote, of arrays of numbers."


def test_arrays_that_do_not_fit_are_refused() -> None:
    np.savez("data.npz", np.ones((4, 6)), np.ones((3, 6)))
    done = run("net.py:one", "--data", "data.npz", "-o", "out.pt")
    assert done.exit_code == 2
    assert done.stderr == (
        "ArgumentError: 'data.npz' holds no samples that fit each other\n"
        "  at --data\n"
        "  axis 0 of every array counts samples, and they are arr_0: 4, arr_1: 3\n"
        "  Save arrays with as many samples each, for example numpy.savez('data.npz', images).\n"
    )
    np.savez("data.npz", np.ones((4, 6)))
    assert run("net.py:Net", "--data", "data.npz", "-o", "out.pt").stderr == (
        "InputError: a batch holds no 'y' for the model\n"
        "  at Net\n"
        "  the model takes x, y, and got x\n"
        "  Give tuples of arguments, mappings of keywords, or forward=lambda model, batch: …\n"
    )
