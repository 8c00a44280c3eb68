"""Every Python block of the documentation runs, from the top of its page to the bottom, in an empty folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("packages/*/*.md"), *ROOT.glob("tests/plugins/*/*.md")]
)
READER = Sybil(parsers=[PythonCodeBlockParser()])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_code_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = list(READER.parse(page).examples())
    # A fence that the parser does not recognise would never run.
    assert len(blocks) == page.read_text(encoding="utf-8").count("```python")
    for block in blocks:
        block.evaluate()
