"""The file that a command writes is no directory."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from quant_core.cli.main import quant


def test_a_path_of_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("from torch import nn\n\n\nclass Net(nn.ReLU):\n    pass\n")
    given = f"{tmp_path}/folder/"
    done = CliRunner().invoke(quant, ["export", "integers", f"{tmp_path}/net.py:Net", "--input", "2x3", "-o", given])
    assert done.exit_code == 2
    assert done.stderr == (
        f"ArgumentError: --output names the directory '{given}'\n"
        "  at quant export\n"
        "  one file is written, and a path with a separator at its end is that of a directory\n"
        f"  Leave the separator out, or give the name of a file in it: {given}NAME\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["net.py"]
