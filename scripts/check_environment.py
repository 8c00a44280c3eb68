"""Check that an environment holds the named packages as installed wheels, with what they declare and nothing else.

    python scripts/check_environment.py 'quant-nn[test]'

Tests that pass in such an environment show that a package neither needs an undeclared distribution nor a file that
is in the source tree but not in the wheel.
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution, distributions
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from projects import packages

# Part of every environment: the installer.
INSTALLER = {"pip"}


def main(requirements: Sequence[str]) -> None:
    problems = [*misplaced(requirements), *undeclared(requirements)]
    if problems:
        sys.exit("This environment does not show what it should:\n  " + "\n  ".join(problems))
    print(f"{', '.join(requirements)}: installed from a wheel, with the declared dependencies only")


def misplaced(requirements: Sequence[str]) -> list[str]:
    """The named packages that are not imported from the environment's own site-packages."""
    home = Path(sysconfig.get_path("purelib"))
    known = packages()
    found = []
    for line in requirements:
        name = known[canonicalize_name(Requirement(line).name)].import_name
        spec = find_spec(name)
        if spec is None or spec.origin is None:
            found.append(f"{name} cannot be imported")
        elif not Path(spec.origin).is_relative_to(home):
            found.append(f"{name} comes from {spec.origin}, outside {home}")
    return found


def undeclared(requirements: Sequence[str]) -> list[str]:
    """The installed distributions that the named packages do not ask for, directly or not."""
    declared = closure(requirements) | INSTALLER
    installed = {canonicalize_name(found.name): found.version for found in distributions()}
    return [
        f"{name} {version} is installed, and no dependency declares it"
        for name, version in sorted(installed.items())
        if name not in declared
    ]


def closure(requirements: Sequence[str]) -> set[str]:
    """The names of all distributions that the requirements lead to, by the metadata of what is installed."""
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [Requirement(line) for line in requirements]
    while waiting:
        requirement = waiting.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            lines = distribution(name).requires or []
        except PackageNotFoundError:
            continue
        for further in map(Requirement, lines):
            if further.marker is None or any(further.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                waiting.append(further)
    return {name for name, _ in seen}


if __name__ == "__main__":
    main(sys.argv[1:])
