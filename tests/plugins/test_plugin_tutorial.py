"""docs/plugins.md: its plugin works as printed, its output is what is printed, and it knows every hook."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from quant_core.plugins import hookspecs
from quant_core.plugins.loading import HOOKS

PAGE = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment where the distribution of the tutorial is installed, and no other plugin is in use."""
    project = tomllib.loads(_blocks("toml")[0])["project"]
    (tmp_path / "quant_hello.py").write_text(_blocks("python")[0], encoding="utf-8")
    metadata = tmp_path / f"quant_hello-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n", encoding="utf-8"
    )
    points = "".join(f"{name} = {module}\n" for name, module in project["entry-points"]["quant"].items())
    (metadata / "entry_points.txt").write_text(f"[quant]\n{points}", encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    others = ",".join(point.name for point in entry_points(group="quant"))
    return os.environ | {
        "PYTHONPATH": path,
        "PYTHONIOENCODING": "utf-8",
        "QUANT_DISABLE_PLUGINS": others,
        "QUANT_STRICT_PLUGINS": "1",
    }


def _session(block: str) -> list[tuple[str, str]]:
    """The commands of a console block, each with its output."""
    parts = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def _run(command: str, environment: dict[str, str], folder: Path) -> str:
    words = command.split()
    assert words[0] == "quant"
    done = subprocess.run(
        [sys.executable, "-m", "quant_core", *words[1:]],
        capture_output=True,
        encoding="utf-8",
        env=environment,
        cwd=folder,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_listing_prints_what_the_page_says(environment: dict[str, str], tmp_path: Path) -> None:
    ((command, output),) = _session(_blocks("console")[0])
    listed = _run(command, environment | {"QUANT_STRICT_PLUGINS": "0"}, tmp_path)
    assert listed == output


def test_the_export_writes_what_the_page_says(environment: dict[str, str], tmp_path: Path) -> None:
    (export, _), (show, content) = _session(_blocks("console")[1])
    _run(export, environment, tmp_path)
    assert show.startswith("cat ")
    assert (tmp_path / show.removeprefix("cat ")).read_text(encoding="utf-8") == content


def test_the_metadata_has_six_lines() -> None:
    assert len(_blocks("toml")[0].splitlines()) == 6


@pytest.mark.parametrize("hook", HOOKS)
def test_the_page_holds_the_signature_of_each_hook_and_an_example(hook: str) -> None:
    source = inspect.getsource(getattr(hookspecs, hook))
    signature = next(line for line in source.splitlines() if line.startswith("def "))
    examples = [
        block for block in _blocks("python") if f"@hookimpl\n{signature}\n    yield {HOOKS[hook].__name__}(" in block
    ]
    assert len(examples) == 1


def test_the_page_explains_each_status() -> None:
    for status in ("active", "disabled", "incompatible", "broken"):
        assert f"| `{status}` |" in PAGE
