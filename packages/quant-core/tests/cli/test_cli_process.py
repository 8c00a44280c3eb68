"""The command as a process: what it imports, and what it prints."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

HEAVY = {"torch", "onnx", "onnxruntime", "onnxscript", "numpy"}


def _quant(*arguments: str) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """Run the command; also gives the top-level names of all that it imported."""
    command = [sys.executable, "-X", "importtime", "-m", "quant_core", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return done, {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["export", "--list-targets"], 0),
        (["export", "--list-targets", "--json"], 0),
        (["plugins"], 0),
        (["--version"], 0),
        (["--help"], 0),
        (["export", "--help"], 0),
        (["export", "no-such-target"], 2),
        (["exprot"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_torch_is_imported_for_exports_only(arguments: list[str], code: int) -> None:
    done, imported = _quant(*arguments)
    assert done.returncode == code
    assert "click" in imported
    assert not imported & HEAVY


def test_the_version_names_what_a_report_needs() -> None:
    done, _ = _quant("--version")
    lines = done.stdout.splitlines()
    assert lines[0] == f"quant-core {version('quant-core')}"
    assert lines[-2] == f"torch {version('torch')}"
    assert lines[-1] == "python {}.{}.{}".format(*sys.version_info[:3])
