"""The table of packages in the README, made from the metadata of the packages.

    python scripts/package_table.py [--check]

It is written between its two marks; with --check nothing is written, and a table that is out of date is an error.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable

from projects import ROOT, Project, packages

BEGIN = "<!-- the packages, written by scripts/package_table.py -->"
END = "<!-- end of the packages -->"


def table(projects: Iterable[Project]) -> str:
    """One row for each package."""
    rows = [
        f"| [{project.name}](packages/{project.path.name}) | `{project.import_name}` | {project.status} "
        f"| {project.summary} |"
        for project in projects
    ]
    return "\n".join(["| package | import | state | what it holds |", "| --- | --- | --- | --- |", *rows])


def with_table(text: str) -> str:
    """The text with the table as it should be between its marks."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin, f"the README lacks the mark {BEGIN}"
    assert end, f"the README lacks the mark {END}"
    return f"{before}{BEGIN}\n{table(packages().values())}\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail when the table is out of date")
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    if not parser.parse_args().check:
        readme.write_text(with_table(text), encoding="utf-8")
    elif with_table(text) != text:
        sys.exit("The table of packages in README.md is out of date; write it with: python scripts/package_table.py")


if __name__ == "__main__":
    main()
