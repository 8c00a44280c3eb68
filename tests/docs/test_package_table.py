"""The table of packages in the README says what the metadata says."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def checked(root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-B", "scripts/package_table.py", "--check"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


def test_the_table_is_up_to_date() -> None:
    done = checked(ROOT)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_table_that_is_not_is_an_error(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "README.md", tmp_path)
    done = checked(tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        "The table of packages in README.md is out of date; write it with: python scripts/package_table.py\n"
    )
