"""A repository of two packages, with the real scripts, to release from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from .repository import Repository, changelog, metadata

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    repository = Repository(path=tmp_path)
    shutil.copytree(SCRIPTS, tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    repository.git("init", "--quiet", "--initial-branch=main")
    repository.git("config", "user.name", "Somebody")
    repository.git("config", "user.email", "somebody@example.org")
    repository.git("config", "commit.gpgsign", "false")
    repository.git("config", "tag.gpgsign", "false")
    repository.git("add", "scripts")
    repository.git("commit", "--quiet", "--message", "Add the scripts")
    repository.commit("packages/base/pyproject.toml", metadata("base", "0.1.0", "torch>=2"))
    repository.commit("packages/base/CHANGELOG.md", changelog("base", "A first feature."))
    repository.commit("packages/layers/pyproject.toml", metadata("layers", "0.1.0", "base>=0.1,<0.2"))
    repository.commit("packages/layers/CHANGELOG.md", changelog("layers", "A first layer."))
    return repository
