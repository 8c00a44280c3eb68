"""Build each package's sdist and wheel, and check what is in them.

    python scripts/check_distributions.py [NAME ...]

The wheel built from the sdist has the same files as the one built from the tree, it holds ``py.typed`` and the license,
it installs nothing outside its own package, and twine finds nothing wrong with the metadata.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from projects import Project, packages


def main(names: Sequence[str]) -> None:
    known = packages()
    problems = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names or known:
            problems += check(known[name], Path(folder) / name)
    if problems:
        sys.exit("These distributions cannot be released:\n  " + "\n  ".join(problems))


def check(project: Project, folder: Path) -> list[str]:
    """What is wrong with the distributions of one package; they are built in the folder."""
    # The build tools are those of this environment, so that their versions are the pinned ones.
    _run("build", "--no-isolation", "--outdir", str(folder / "from-sdist"), str(project.path))
    _run("build", "--no-isolation", "--wheel", "--outdir", str(folder / "from-tree"), str(project.path))
    _run("twine", "check", "--strict", *map(str, sorted((folder / "from-sdist").iterdir())))
    (indirect,) = (folder / "from-sdist").glob("*.whl")
    (direct,) = (folder / "from-tree").glob("*.whl")
    files, expected = _files(indirect), _files(direct)
    info = f"{project.import_name}-{project.version}.dist-info"
    required = {f"{project.import_name}/py.typed", f"{info}/METADATA", f"{info}/licenses/LICENSE"}
    foreign = {file for file in files if not file.startswith((f"{project.import_name}/", f"{info}/"))}
    findings = {
        "the sdist's wheel lacks": expected - files,
        "only the sdist's wheel has": files - expected,
        "the wheel lacks": required - files,
        "the wheel would install": foreign,
    }
    problems = [f"{project.name}: {what} {', '.join(sorted(which))}" for what, which in findings.items() if which]
    if not problems:
        print(f"{project.name} {project.version}: {len(files)} files in the wheel, checked")
    return problems


def _files(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def _run(tool: str, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", tool, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{tool} {' '.join(arguments)} failed\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    main(sys.argv[1:])
