"""The check on the environments of the packages finds what does not belong there."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_sibling_that_nothing_declares_is_found() -> None:
    command = [sys.executable, "-B", "scripts/check_environment.py", "quant-core[test]"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    heading, *lines = done.stderr.splitlines()
    assert heading == "This environment does not show what it should:"
    assert f"  quant-nn {version('quant-nn')} is installed, and no dependency declares it" in lines
    assert not any(line.startswith(("  torch ", "  pytest ", "  pip ")) for line in lines)
