"""The table of what is supported in the README is the one that the capabilities give."""

from __future__ import annotations

from pathlib import Path

from export_finn.plugin import FINN, QONNX
from quant_core.plugins import QuantSupport

README = Path(__file__).parents[1] / "README.md"


def row(target: str, kind: str, support: QuantSupport) -> str:
    """One line of the table."""
    op, _, role = kind.partition(" ")
    widths = sorted(support.bit_widths)
    assert widths == list(range(widths[0], widths[-1] + 1))
    bits = f"{widths[0]} to {widths[-1]}" if len(widths) > 1 else str(widths[0])
    # What is constant is rounded before it is written.
    modes = ", ".join(sorted(support.rounding_modes)) if role == "activation" else "any"
    cells = (f"`{target}`", role, f"`{op}`", bits, {"any": "any", "zero": "0"}[support.zero_point], modes)
    return f"| {' | '.join(cells)} |"


def test_the_table_is_current() -> None:
    text = README.read_text(encoding="utf-8")
    rows = [
        row(target, *entry) for target, takes in (("qonnx", QONNX), ("finn", FINN)) for entry in takes.quant.items()
    ]
    assert "\n".join(rows) in text


def test_every_support_has_all_signs_ranges_and_granularities() -> None:
    for support in (*QONNX.quant.values(), *FINN.quant.values()):
        assert support.signed == support.narrow_range == {True, False}
        assert support.granularity == {"per_tensor", "per_channel"}
        assert support.scale == "float"
