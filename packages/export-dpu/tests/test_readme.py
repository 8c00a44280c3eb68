"""The table of what is supported in the README is the one that the capabilities give."""

from __future__ import annotations

from pathlib import Path

import export_dpu
from export_dpu.plugin import DPU, quant_targets
from quant_core.plugins import QuantSupport

README = Path(__file__).parents[1] / "README.md"
WORDS = {frozenset({True}): "yes", frozenset({False}): "no", frozenset({True, False}): "yes or no"}


def row(kind: str, support: QuantSupport) -> str:
    """One line of the table."""
    op, _, role = kind.partition(" ")
    widths = sorted(support.bit_widths)
    assert widths == list(range(widths[0], widths[-1] + 1))
    bits = f"{widths[0]} to {widths[-1]}" if len(widths) > 1 else str(widths[0])
    modes = ", ".join(sorted(support.rounding_modes)) if role == "activation" else "any"
    signed, narrow = (WORDS[frozenset(words)] for words in (support.signed, support.narrow_range))
    return f"| {role} | `{op}` | {bits} | {signed} | {narrow} | {modes} |"


def test_the_table_is_current() -> None:
    rows = [row(*entry) for entry in DPU.quant.items()]
    assert "\n".join(rows) in README.read_text(encoding="utf-8")


def test_every_support_has_one_power_of_two_and_no_zero_point() -> None:
    for support in DPU.quant.values():
        assert (support.scale, support.zero_point, support.granularity) == ("power_of_two", "zero", {"per_tensor"})


def test_both_targets_take_the_same() -> None:
    assert [(target.name, target.capabilities) for target in quant_targets()] == [("dpuv1", DPU), ("dpuv2", DPU)]


def test_every_operation_that_is_declared_is_read() -> None:
    from export_dpu.reader import _READERS

    read = {str(operation).removeprefix("aten.") for operation in _READERS}
    assert read | {"mul.Tensor"} == DPU.aten


def test_the_package_says_its_version() -> None:
    assert export_dpu.__version__
