"""The matrix of targets in the documentation says what the targets declare."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_matrix_is_up_to_date() -> None:
    command = [sys.executable, "-B", "scripts/support_matrix.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
