"""The matrix of what each target takes, made from what the targets of this repository declare.

    python scripts/support_matrix.py [--check]

It is written between its two marks in docs/export.md; with --check nothing is written, and a matrix that is out of date is an
error. The packages must be installed.
"""

from __future__ import annotations

from projects import ROOT, packages
from sections import write_or_check

from quant_core.plugins import QuantSupport, registry

BEGIN = "<!-- what targets take, written by scripts/support_matrix.py -->"
END = "<!-- end of what targets take -->"


def matrix() -> str:
    """One row for each target, op and role."""
    lines = [
        "| target | op and role | bits | signed | narrow range | zero-point | granularity | rounding | scale |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, registered in registry().targets.items():
        if registered.distribution in packages():
            for key, support in registered.item.capabilities.quant.items():
                lines.append(f"| `{name}` | {key} | {' | '.join(cells(support, weight='activation' not in key))} |")
    return "\n".join(lines)


def cells(support: QuantSupport, *, weight: bool) -> list[str]:
    """What one row says; weights and biases are rounded before they are lowered, so that any rounding mode will do."""
    bits = sorted(support.bit_widths)
    return [
        f"{bits[0]} to {bits[-1]}" if 1 < len(bits) == bits[-1] - bits[0] + 1 else ", ".join(map(str, bits)),
        yes_or_no(support.signed),
        yes_or_no(support.narrow_range),
        support.zero_point,
        ", ".join(sorted(word.replace("_", " ") for word in support.granularity)),
        "any" if weight else ", ".join(sorted(support.rounding_modes)),
        support.scale.replace("_", " "),
    ]


def yes_or_no(values: object) -> str:
    """Both, or the one that it must be."""
    found = sorted(values)  # type: ignore[call-overload]
    return "both" if len(found) == 2 else "yes" if found[0] else "no"


if __name__ == "__main__":
    write_or_check(ROOT / "docs" / "export.md", BEGIN, END, matrix, "The matrix of targets")
