"""Where the distributions of this repository lie, and which of them need which."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, kw_only=True)
class Project:
    """One distribution, as its ``pyproject.toml`` describes it."""

    name: str
    version: str
    summary: str
    status: str
    path: Path
    dependencies: tuple[str, ...]
    extras: Mapping[str, tuple[str, ...]]

    @property
    def import_name(self) -> str:
        return self.name.replace("-", "_")

    @property
    def requirements(self) -> tuple[str, ...]:
        """The dependencies, and those of every extra."""
        return (*self.dependencies, *(line for lines in self.extras.values() for line in lines))


def packages(root: Path = ROOT) -> dict[str, Project]:
    """The packages that are released from here, by name."""
    return _found(root.glob("packages/*/pyproject.toml"))


def installable(root: Path = ROOT) -> dict[str, Project]:
    """The packages and the plugins that only the tests install, by name."""
    return packages(root) | _found(root.glob("tests/plugins/*/pyproject.toml"))


def distribution_name(requirement: str) -> str:
    """The distribution that a requirement names.

    >>> distribution_name("Quant_Core[testing]>=0.1,<0.2")
    'quant-core'
    """
    match = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", requirement.strip())
    if match is None:
        raise ValueError(f"{requirement!r} does not begin with the name of a distribution")
    return re.sub(r"[-_.]+", "-", match.group()).lower()


def with_siblings(names: Iterable[str], known: Mapping[str, Project]) -> list[str]:
    """The named projects and every known project that they need, directly or not, in alphabetical order."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in known and name not in found:
            found.add(name)
            waiting += [distribution_name(line) for line in known[name].requirements]
    return sorted(found)


def _found(files: Iterable[Path]) -> dict[str, Project]:
    read = [_read(file) for file in sorted(files)]
    return {project.name: project for project in read}


def _read(file: Path) -> Project:
    table: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
    return Project(
        name=table["name"],
        version=table["version"],
        summary=table.get("description", ""),
        status=_status(table.get("classifiers", ())),
        path=file.parent,
        dependencies=tuple(table.get("dependencies", ())),
        extras={name: tuple(lines) for name, lines in table.get("optional-dependencies", {}).items()},
    )


def _status(classifiers: Iterable[str]) -> str:
    stated = [line for line in classifiers if line.startswith("Development Status :: ")]
    return stated[0].rpartition(" - ")[2].lower() if stated else "not stated"
