"""Parts of documents that are written by scripts: found between two marks, replaced or compared."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path


def with_section(text: str, begin: str, end: str, content: str) -> str:
    """The text with that content between its marks."""
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    assert found, f"the document lacks the mark {begin}"
    assert closed, f"the document lacks the mark {end}"
    return f"{before}{begin}\n{content}\n{end}{after}"


def write_or_check(document: Path, begin: str, end: str, content: Callable[[], str], what: str) -> None:
    """What a script does: write the section, or with ``--check`` fail when it is out of date."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when the section is out of date")
    text = document.read_text(encoding="utf-8")
    wanted = with_section(text, begin, end, content())
    if not parser.parse_args().check:
        document.write_text(wanted, encoding="utf-8")
    elif wanted != text:
        script = Path(sys.argv[0]).name
        sys.exit(f"{what} in {document.name} is out of date; write it with: python scripts/{script}")
