"""What calibration has found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """One quantizer with its new range.

    Attributes:
        name: its path.
        threshold: what its largest integer stands for, in the shape of its scale.
        largest: the largest magnitude that was seen; ``None`` where it was not looked at.
        elements: how many elements were seen.
    """

    name: str
    threshold: Tensor
    largest: Tensor | None
    elements: int | None


@dataclass(frozen=True, kw_only=True)
class CalibrationReport:
    """What calibration has found; prints as a table.

    Attributes:
        method: the name of the method.
        batches: how many batches were seen, in all processes.
        quantizers: one for each threshold, in the order of the model.
    """

    method: str
    batches: int
    quantizers: tuple[Calibrated, ...]

    @property
    def thresholds(self) -> dict[str, Tensor]:
        """The thresholds by the path of their quantizer."""
        return {found.name: found.threshold for found in self.quantizers}

    def __str__(self) -> str:
        rows = [(q.name, _range(q.threshold), _range(q.largest), _count(q.elements)) for q in self.quantizers]
        head = f"calibrated with {self.method!r}; batches: {self.batches}, quantizers: {len(rows)}"
        return f"{head}\n{table_text(('quantizer', 'threshold', 'largest seen', 'elements'), rows)}"


def table_text(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table as text, as wide as its cells.

    >>> print(table_text(("layer", "bits"), [("conv1", "4")]))
    layer   bits
    ────────────
    conv1   4
    """
    table = Table(*columns, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console(width=10_000, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines() if line.strip())


def _range(threshold: Tensor | None) -> str:
    if threshold is None:
        return ""
    low, high = torch.aminmax(threshold)
    return f"{low.item():.4g}" if low == high else f"{low.item():.4g} … {high.item():.4g}"


def _count(elements: int | None) -> str:
    return "" if elements is None else f"{elements:,}"
