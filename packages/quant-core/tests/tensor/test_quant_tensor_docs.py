"""The page about quantized tensors: its table is that of the code, and its examples run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from quant_core.tensor import RULES, table

PAGE = Path(__file__).parents[4] / "docs" / "quant_tensor.md"

pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="the page is in the repository, not in the distribution")


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def test_the_table_is_that_of_the_rules(page: str):
    assert table() in page


def test_the_table_states_each_rule():
    rows = table().splitlines()[2:]
    assert len(rows) == len(RULES)
    for row, rule in zip(rows, RULES, strict=True):
        assert row.startswith(f"| {rule.name} | {rule.result} |")
        assert row.endswith(f"| {rule.states} |")
        assert all(f"`{operation}`" in row for operation in rule.operations)


def test_the_examples_run(page: str):
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) == 8
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert names["x"].is_valid
