"""Real distributions made of the modules in data/: each has its metadata and its entry point, as if installed."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, distributions
from pathlib import Path

import pytest

from quant_core.plugins import registry

DATA = Path(__file__).parent / "data"

Install = Callable[..., list[EntryPoint]]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """``install("broken_import", version="1.0")`` makes a distribution ``broken-import``; returns all entry points."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    monkeypatch.delenv("QUANT_DISABLE_PLUGINS", raising=False)
    monkeypatch.delenv("QUANT_STRICT_PLUGINS", raising=False)

    def make(module: str, version: str = "1.0") -> list[EntryPoint]:
        shutil.copy(DATA / f"{module}.py", site)
        name = module.replace("_", "-")
        metadata = site / f"{module}-{version}.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (metadata / "entry_points.txt").write_text(f"[quant]\n{name} = {module}\n")
        found = [point for dist in distributions(path=[str(site)]) for point in dist.entry_points]
        assert all(point.dist is not None for point in found)
        return found

    yield make
    for path in DATA.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.fixture
def environment(install: Install, tmp_path: Path) -> Iterator[Callable[..., None]]:
    """``environment("good_targets", …)`` installs plugins and copies modules, for commands that ask the registry."""

    def prepare(*plugins: str, modules: tuple[str, ...] = ()) -> None:
        for plugin in plugins:
            install(plugin)
        for module in modules:
            shutil.copy(DATA / f"{module}.py", tmp_path / "site")
        registry.cache_clear()

    yield prepare
    registry.cache_clear()
