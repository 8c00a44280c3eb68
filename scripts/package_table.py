"""The table of packages in the README, made from the metadata of the packages.

    python scripts/package_table.py [--check]

It is written between its two marks; with --check nothing is written, and a table that is out of date is an error.
"""

from __future__ import annotations

from projects import ROOT, packages
from sections import write_or_check

BEGIN = "<!-- the packages, written by scripts/package_table.py -->"
END = "<!-- end of the packages -->"


def table() -> str:
    """One row for each package."""
    rows = [
        f"| [{project.name}](packages/{project.path.name}) | `{project.import_name}` | {project.status} "
        f"| {project.summary} |"
        for project in packages().values()
    ]
    return "\n".join(["| package | import | state | what it holds |", "| --- | --- | --- | --- |", *rows])


if __name__ == "__main__":
    write_or_check(ROOT / "README.md", BEGIN, END, table, "The table of packages")
