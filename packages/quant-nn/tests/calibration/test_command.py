"""`quant calibrate`, as far as it goes without numpy."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from quant_core.cli.main import quant

NET = """
import quant_nn as qnn
from torch import nn


def net():
    return nn.Sequential(qnn.QuantIdentity(), qnn.QuantLinear(6, 2), qnn.QuantReLU())
"""


def run(*arguments: str) -> Result:
    return CliRunner().invoke(quant, ["calibrate", *arguments], catch_exceptions=False)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET)


def test_without_numpy_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    done = run("net.py:net", "--data", "images.npz", "-o", "out.pt")
    assert done.exit_code == 2
    assert done.stderr == (
        "LoadError: 'images.npz' cannot be read\n"
        "  at --data\n"
        "  numpy is not installed\n"
        "  Install it: pip install numpy.\n"
    )


def test_a_folder_that_is_not_there_is_found_out_first() -> None:
    done = run("net.py:net", "--data", "images.npz", "-o", "nowhere/out.pt")
    assert done.exit_code == 1
    assert done.stderr == (
        "ArtifactError: cannot write 'out.pt'\n"
        "  at nowhere/out.pt\n"
        "  nowhere is not a directory\n"
        "  Create it first: mkdir -p nowhere\n"
    )


def test_what_is_read_is_not_overwritten() -> None:
    done = run("net.py:net", "--data", "images.npz", "-o", "net.py")
    assert done.exit_code == 2
    assert done.stderr == (
        "ArgumentError: --output would overwrite MODEL\n"
        "  at net.py\n"
        "  the command reads that file, and would replace it by the weights\n"
        "  Write to another file, for example net.pt.\n"
    )


def test_the_command_is_listed() -> None:
    done = CliRunner().invoke(quant, ["--help"])
    assert "calibrate" in done.output
