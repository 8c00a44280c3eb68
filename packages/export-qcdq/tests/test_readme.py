"""The table of what is supported in the README is the one that the capabilities give."""

from __future__ import annotations

from pathlib import Path

from export_qcdq.plugin import QCDQ
from quant_core.plugins import QuantSupport

README = Path(__file__).parents[1] / "README.md"


def row(kind: str, support: QuantSupport) -> str:
    """One line of the table."""
    op, _, role = kind.partition(" ")
    cells = (
        role,
        f"`{op}`",
        " to ".join(map(str, sorted({min(support.bit_widths), max(support.bit_widths)}))),
        " and ".join(word for word, value in (("signed", True), ("unsigned", False)) if value in support.signed),
        " and ".join(word for word, value in (("full", False), ("narrow", True)) if value in support.narrow_range),
        {"any": "any", "zero": "0"}[support.zero_point],
        ", ".join(sorted(word.replace("_", " ") for word in support.granularity)),
        # What is constant is rounded before it is written.
        ", ".join(sorted(support.rounding_modes)) if role == "activation" else "any",
        support.scale.replace("_", " "),
    )
    return f"| {' | '.join(cells)} |"


def table() -> str:
    """The whole table, activations first."""
    head = ("tensor", "op", "bits", "integers", "range", "zero-point", "scale", "rounding mode", "scale is")
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    return "\n".join(lines + [row(kind, support) for kind, support in sorted(QCDQ.quant.items())])


def test_every_width_between_the_ends_is_supported() -> None:
    for support in QCDQ.quant.values():
        widths = sorted(support.bit_widths)
        assert widths == list(range(widths[0], widths[-1] + 1))


def test_the_table_is_current() -> None:
    assert table() in README.read_text(encoding="utf-8")
