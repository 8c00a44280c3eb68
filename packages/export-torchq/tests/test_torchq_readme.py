"""The table of what is supported in the README is the one that the capabilities give."""

from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path

import export_torchq
from export_torchq.plugin import PT2E, TORCHQ, quant_targets
from quant_core.plugins import QuantSupport

README = Path(__file__).parents[1] / "README.md"


def row(target: str, kind: str, support: QuantSupport) -> str:
    """One line of the table."""
    op, _, role = kind.partition(" ")
    widths = sorted(support.bit_widths)
    assert widths == list(range(widths[0], widths[-1] + 1))
    bits = f"{widths[0]} to {widths[-1]}" if len(widths) > 1 else str(widths[0])
    scale = ", ".join(sorted(word.replace("_", " ") for word in support.granularity))
    return f"| `{target}` | {role} | `{op}` | {bits} | {support.zero_point} | {scale} |"


def test_the_table_is_current() -> None:
    rows = [
        row(target, *entry)
        for target, declared in (("torchq", TORCHQ), ("pt2e", PT2E))
        for entry in declared.quant.items()
    ]
    assert "\n".join(rows) in README.read_text(encoding="utf-8")


def test_activations_round_half_to_even() -> None:
    modes = {support.rounding_modes for declared in (TORCHQ, PT2E) for support in declared.quant.values()}
    assert modes == {frozenset({"ROUND"})}


def test_what_is_registered() -> None:
    found = [(target.name, target.suffix, target.capabilities, target.runtime) for target in quant_targets()]
    assert found == [("torchq", ".pt", TORCHQ, "torch"), ("pt2e", ".pt2", PT2E, "torch")]


def test_the_package_says_its_version_and_is_typed() -> None:
    assert export_torchq.__version__ == distribution("export-torchq").version
    assert (Path(export_torchq.__file__).parent / "py.typed").is_file()
