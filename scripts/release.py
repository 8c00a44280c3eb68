"""Release one package.

    python scripts/release.py bump quant-nn 0.2.0 [--dry-run]
    python scripts/release.py tagged quant-nn-v0.2.0

`bump` checks that the release is possible, sets the version, dates the changelog, commits both and tags the commit
`quant-nn-v0.2.0`. It pushes nothing. `tagged` prints the name of the package that a tag releases, and fails when the
tag and the metadata do not agree; the release workflow asks it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from projects import ROOT, packages
from release_errors import ReleaseError, TreeError, VersionError
from release_plan import Plan, named, plan


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    bump = commands.add_parser("bump", help="set a version, date the changelog, commit and tag")
    bump.add_argument("name", help="the package, such as quant-nn")
    bump.add_argument("version", help="its new version, such as 0.2.0")
    bump.add_argument("--dry-run", action="store_true", help="make every check and change nothing")
    tagged = commands.add_parser("tagged", help="print the name of the package that a tag releases")
    tagged.add_argument("tag", help="such as quant-nn-v0.2.0")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "bump":
            _bump(chosen.name, chosen.version, dry_run=chosen.dry_run)
        else:
            print(_tagged(chosen.tag))
    except ReleaseError as refusal:
        sys.exit(f"{type(refusal).__name__}: {refusal}")


def _bump(name: str, version: str, *, dry_run: bool) -> None:
    changed = _git("status", "--porcelain").splitlines()
    if changed:
        raise TreeError(
            "the working tree has changes that are not committed",
            where=", ".join(line[3:] for line in changed),
            why="a release is made of committed files only",
            fix="Commit them, or put them aside.",
        )
    tags = frozenset(_git("tag", "--list").split())
    release = plan(name, version, known=packages(), tags=tags, date=f"{datetime.now(UTC):%Y-%m-%d}")
    if not dry_run:
        _carry_out(release)
    print(f"{'Would release' if dry_run else 'Released'} {name} {version}:")
    for file in release.files:
        print(f"  {file.relative_to(ROOT).as_posix()}")
    print(f"  tag {release.tag}")
    if not dry_run:
        print(f"Publish it with: git push origin HEAD {release.tag}")


def _carry_out(release: Plan) -> None:
    for file, content in release.files.items():
        file.write_text(content, encoding="utf-8")
    title = f"Release {release.name} {release.version}"
    _git("add", *map(str, release.files))
    # The first release under the developed version may leave pyproject.toml as it was; the changelog always changes.
    _git("commit", "--quiet", "--message", title, "--", *map(str, release.files))
    _git("tag", "--annotate", "--message", title, release.tag)


def _tagged(tag: str) -> str:
    name, _, version = tag.rpartition("-v")
    project = named(name, packages())
    if version != project.version:
        raise VersionError(
            f"the tag {tag} does not name the version of {name}",
            where=f"packages/{name}/pyproject.toml",
            why=f"the version there is {project.version}",
            fix="Make tags with scripts/release.py bump.",
        )
    return name


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TreeError(
            f"git {arguments[0]} failed",
            where=str(ROOT),
            why=done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}",
            fix="Resolve this by hand, and release again.",
        )
    return done.stdout


if __name__ == "__main__":
    main()
