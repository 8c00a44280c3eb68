"""The report for people: one line for each layer, and one for their sums."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from quant_core.cli.output import readable_size
from quant_nn.report.rows import TOTALS, ModelReport, columns_in_use

_HEADS: Final[Mapping[str, str]] = {
    "path": "layer",
    "weight_bits": "weight",
    "bias_bits": "bias",
    "input_bits": "in",
    "output_bits": "out",
    "restriction": "scale",
    "float_bytes": "float",
    "quantized_bytes": "quantized",
    "macs": "MACs",
    "bops": "BOPs",
    "accumulator_bits": "accumulator",
    "weight_sqnr": "weight dB",
    "sqnr": "dB",
    "saturation": "saturated",
}


def cells(report: ModelReport) -> tuple[list[str], list[list[str]]]:
    """The heads of the columns that say something, and the rows; the last one holds the sums."""
    names = columns_in_use(report.rows) or ["path", "type"]
    rows = [[_cell(name, getattr(row, name)) for name in names] for row in report.rows]
    sums = ["total" if name == "path" else _cell(name, report.total(name)) if name in TOTALS else "" for name in names]
    return [_HEADS.get(name, name) for name in names], [*rows, sums]


def text(report: ModelReport) -> str:
    """The table as text.

    >>> from quant_nn.report.rows import LayerRow
    >>> print(text(ModelReport(rows=(LayerRow(path="fc", type="QuantLinear", weight_bits=3.0, macs=2_000_000),))))
    layer  type         weight  MACs
    fc     QuantLinear  3       2 M
    total                       2 M
    """
    heads, rows = cells(report)
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in (heads, *rows)]
    return "\n".join("  ".join(line).rstrip() for line in lines)


def readable_count(number: float) -> str:
    """A count with a unit, in powers of 1000.

    >>> readable_count(999), readable_count(1_234_567), readable_count(5e12)
    ('999', '1.23 M', '5 T')
    """
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:g}"


_FORMS: Final[Mapping[str, Callable[[Any], str]]] = {
    "float_bytes": readable_size,
    "quantized_bytes": readable_size,
    "macs": readable_count,
    "bops": readable_count,
    "parameters": readable_count,
    "saturation": lambda share: f"{share:.2%}",
    "sqnr": lambda ratio: f"{ratio:.1f}",
    "weight_sqnr": lambda ratio: f"{ratio:.1f}",
}


def _cell(name: str, value: Any) -> str:
    if value is None or (value == 0 and name in TOTALS):
        return ""
    if name in _FORMS:
        return _FORMS[name](value)
    if name in ("granularity", "restriction"):
        return str(value).replace("_", " ")
    return f"{value:.3g}" if isinstance(value, float) else str(value)
