"""The page on quantizers lists each keyword with all of its words."""

from __future__ import annotations

import re
from pathlib import Path

from quant_core.checkpoints.brevitas import RENAMED
from quant_core.shorthand import SHORTHANDS

PAGE = (Path(__file__).parents[2] / "docs" / "quantizers.md").read_text(encoding="utf-8")


def rows(header: str) -> list[tuple[str, str]]:
    """The two columns of the table with that header."""
    lines = PAGE.partition(f"{header}\n")[2].splitlines()
    table = lines[: next(index for index, line in enumerate(lines) if not line.startswith("|"))]
    return [(line.split("|")[1], line.split("|")[2]) for line in table[1:]]


def test_each_keyword_is_listed_with_its_words() -> None:
    listed: set[str] = set()
    for keywords, words in rows("| keyword | words |"):
        for keyword in re.findall(r"`(\w+)`", keywords):
            known = [entry.word for entry in SHORTHANDS if entry.keyword == keyword and entry.word]
            listed |= {f"{keyword}={word}" for word in re.findall(r"`(\w+)`", words) if word in known}
            listed |= {entry.name for entry in SHORTHANDS if entry.name == keyword}
    assert {entry.name for entry in SHORTHANDS} - listed == set()


def test_the_key_map_is_listed() -> None:
    listed = {tuple(cell.strip(" `").strip("….") for cell in row) for row in rows("| there | here |")}
    shared = "tensor_quant."  # what both sides begin with is left out on the page
    wanted = {
        tuple(name.removeprefix(shared).strip(".") for name in pair)
        if all(name.startswith(shared) for name in pair)
        else tuple(name.strip(".") for name in pair)
        for pair in RENAMED
    }
    assert listed == wanted
