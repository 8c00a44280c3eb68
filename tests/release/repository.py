"""A repository on disk that the release script runs in, and the files of a package in it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Repository:
    path: Path

    def git(self, *arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=self.path, capture_output=True, text=True, check=True)
        return done.stdout

    def release(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-B", "scripts/release.py", *arguments]
        return subprocess.run(command, cwd=self.path, capture_output=True, text=True, check=False)

    def read(self, file: str) -> str:
        return (self.path / file).read_text(encoding="utf-8")

    def commit(self, file: str, content: str) -> None:
        (self.path / file).parent.mkdir(parents=True, exist_ok=True)
        (self.path / file).write_text(content, encoding="utf-8")
        self.git("add", file)
        self.git("commit", "--quiet", "--message", f"Change {file}")

    def state(self) -> tuple[str, str, str]:
        return self.git("rev-parse", "HEAD"), self.git("tag", "--list"), self.git("status", "--porcelain")


def metadata(name: str, version: str, *dependencies: str) -> str:
    lines = ", ".join(f'"{line}"' for line in dependencies)
    return f'[project]\nname = "{name}"\nversion = "{version}"\ndependencies = [{lines}]\n'


def changelog(name: str, *entries: str) -> str:
    return f"# Changelog of {name}\n\n## Unreleased\n\n" + "".join(f"- {entry}\n" for entry in entries)
