"""One place says which version of a tool is used; where a file must repeat it, it repeats it exactly."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_hooks_use_the_pinned_versions() -> None:
    pins = dict(re.findall(r"(?m)^([\w-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8")))
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    used = set(re.findall(r"additional_dependencies: \[([\w-]+)==([^\]]+)\]", hooks))
    assert {name for name, _ in used} == {"ruff", "pre-commit-hooks"}
    assert used <= pins.items()
