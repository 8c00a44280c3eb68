"""Install packages of this repository into the running environment, from wheels built here.

    python scripts/install_packages.py 'quant-nn[test]'
    python scripts/install_packages.py --all

pip is told where the wheel of each sibling lies by a constraint, not by a requirement. So it installs what the metadata
of the package declares and nothing else, and it never takes a namesake of a sibling from an index. Third-party
distributions have the versions of constraints.txt.

A wheel is built again only when a file of its project has changed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path

from projects import ROOT, Project, distribution_name, installable, with_siblings

CONSTRAINTS = ROOT / "constraints.txt"
WHEELS = ROOT / ".tox" / "wheels"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("requirements", nargs="*", metavar="NAME[EXTRA,...]", help="packages of this repository")
    parser.add_argument("--all", action="store_true", help="everything in the repository, with the extra 'test'")
    chosen = parser.parse_args(arguments)
    known = installable()
    requirements = [f"{name}[test]" for name in known] if chosen.all else chosen.requirements
    unknown = sorted({distribution_name(line) for line in requirements} - known.keys())
    if unknown or not requirements:
        parser.error(f"not in this repository: {', '.join(unknown) or 'nothing named'}; there are {', '.join(known)}")
    install(requirements, known)


def install(requirements: Sequence[str], known: Mapping[str, Project]) -> None:
    """Build the wheels and install the requirements, replacing what is installed of this repository."""
    needed = with_siblings(map(distribution_name, requirements), known)
    wheels = {name: wheel(known[name]) for name in needed}
    outdated = known.keys() & {distribution_name(found.name) for found in distributions()}
    if outdated:
        _pip("uninstall", "--quiet", "--yes", *sorted(outdated))
    with tempfile.TemporaryDirectory() as folder:
        siblings = Path(folder) / "siblings.txt"
        siblings.write_text("".join(f"{name} @ {wheels[name].as_uri()}\n" for name in needed), encoding="utf-8")
        # Bytecode is left to the first import: compiling all of torch takes longer than unpacking it.
        _pip("install", "--quiet", "--no-compile", f"-c{CONSTRAINTS}", f"-c{siblings}", *requirements)


def wheel(project: Project, store: Path = WHEELS) -> Path:
    """The wheel of the project as its files are now, built unless the store has it."""
    folder = store / f"{project.name}-{_digest(project.path)}"
    if not folder.exists():
        store.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=store) as building:
            target = Path(building) / "wheel"
            _pip("wheel", "--quiet", "--no-deps", f"--wheel-dir={target}", str(project.path))
            # Whole or not at all: another environment may be building the same wheel at this moment.
            try:
                target.rename(folder)
            except OSError:
                if not folder.exists():
                    raise
    (built,) = folder.glob("*.whl")
    return built


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in _sources(folder):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(folder)}:{len(content)}:".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def _sources(folder: Path) -> Iterator[Path]:
    for file in sorted(folder.rglob("*")):
        parts = file.relative_to(folder).parts
        if file.is_file() and "__pycache__" not in parts and not any(part.startswith(".") for part in parts):
            yield file


def _pip(*arguments: str) -> None:
    # pip builds a wheel in an environment of its own, where only these variables reach; older pips read the first.
    pins = {"PIP_CONSTRAINT": str(CONSTRAINTS), "PIP_BUILD_CONSTRAINT": str(CONSTRAINTS)}
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, env=os.environ | (pins if arguments[0] == "wheel" else {}), check=False)
    if done.returncode:
        sys.exit(f"pip {arguments[0]} failed; the messages above say why")


if __name__ == "__main__":
    main()
