"""The settings of the native kernels, changed for one test."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quant_core import native


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Sets environment variables, ``None`` to unset one, with a cache of its own, and looks for the kernels anew."""

    def change(**variables: str | None) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        for name, setting in variables.items():
            if setting is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, setting)
        native.kernels.cache_clear()

    yield change
    monkeypatch.undo()
    native.kernels.cache_clear()
    assert "QUANT_NATIVE" not in os.environ or native.kernels.cache_info().currsize == 0
