"""What a release changes, worked out before anything is written; every check is made here."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version
from projects import Project, distribution_name
from release_errors import ChangelogError, SiblingError, TreeError, UnknownPackageError, VersionError

UNRELEASED = "## Unreleased"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A release that nothing speaks against: new contents of files, by path, and the tag to set on them."""

    name: str
    version: str
    files: Mapping[Path, str]

    @property
    def tag(self) -> str:
        return f"{self.name}-v{self.version}"


def plan(name: str, version: str, *, known: Mapping[str, Project], tags: frozenset[str], date: str) -> Plan:
    """The release of one package; raises a ReleaseError when it must not happen."""
    project = named(name, known)
    _check_version(project, version, tags)
    _check_ranges(project, version, known)
    metadata, changelog = project.path / "pyproject.toml", project.path / "CHANGELOG.md"
    return Plan(
        name=name,
        version=version,
        files={
            metadata: _with_version(metadata.read_text(encoding="utf-8"), project.version, version),
            changelog: _with_heading(changelog, version, date),
        },
    )


def named(name: str, known: Mapping[str, Project]) -> Project:
    """The package of this name."""
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        raise UnknownPackageError(
            f"there is no package {name!r}",
            where="packages/",
            why=f"the packages are {', '.join(known)}",
            fix=f"Did you mean {near[0]!r}?" if near else "Name one of them.",
        )
    return known[name]


def _check_version(project: Project, version: str, tags: frozenset[str]) -> None:
    place = f"{project.name} {project.version}"
    try:
        new = Version(version)
    except InvalidVersion:
        new = None
    if new is None or str(new) != version or new.local:
        raise VersionError(
            f"{version!r} is not a version that can be released",
            where=place,
            why="a version reads like 0.2.0, 0.2.1 or 1.0.0rc1",
            fix="Write the version in this form.",
        )
    if f"{project.name}-v{version}" in tags:
        raise TreeError(
            f"{project.name} {version} has been released",
            where=place,
            why=f"the tag {project.name}-v{version} exists",
            fix="Choose a higher version; a released one is never changed.",
        )
    # The first release may have the version that the package was developed under.
    released = f"{project.name}-v{project.version}" in tags
    if new < Version(project.version) or (released and new == Version(project.version)):
        raise VersionError(
            f"{version} does not follow {project.version}",
            where=place,
            why=f"a release goes upwards, from {project.version}",
            fix="Choose a higher version.",
        )


def _check_ranges(project: Project, version: str, known: Mapping[str, Project]) -> None:
    refusals = []
    for sibling in known.values():
        for line in sibling.requirements:
            needed = distribution_name(line)
            if needed == sibling.name or needed not in known or project.name not in (needed, sibling.name):
                continue
            offered = version if needed == project.name else known[needed].version
            if not Requirement(line).specifier.contains(offered, prereleases=True):
                refusals.append(f"{sibling.name} {sibling.version} needs {line}, and {needed} would be {offered}")
    if refusals:
        raise SiblingError(
            f"{project.name} {version} would not go together with its siblings",
            where=f"{project.name} {project.version}",
            why="\n".join(sorted(set(refusals))),
            fix="Change these ranges in the packages that state them, run the tests, and release again.",
        )


def _with_version(text: str, old: str, new: str) -> str:
    changed, count = re.subn(rf'(?m)^version = "{re.escape(old)}"$', f'version = "{new}"', text)
    assert count == 1, "a pyproject.toml states its version on one line of its own"
    return changed


def _with_heading(changelog: Path, version: str, date: str) -> str:
    text = changelog.read_text(encoding="utf-8") if changelog.exists() else ""
    before, heading, after = text.partition(f"{UNRELEASED}\n")
    entries = re.split(r"(?m)^## ", after, maxsplit=1)[0]
    if not heading or not entries.strip():
        raise ChangelogError(
            f"the changelog says nothing about {version}",
            where=str(Path(*changelog.parts[-3:])),
            why=f"there is no entry under {UNRELEASED!r}",
            fix="Describe there what changes for a user.",
        )
    return f"{before}{UNRELEASED}\n\n## {version} ({date})\n{after}"
