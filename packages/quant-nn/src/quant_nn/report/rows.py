"""The report as data: a row for each layer, and what they add up to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """What is known of one layer. ``None`` stands for what there is not: bits of what is not quantized, for example.

    Attributes:
        path: of the module.
        type: its class.
        weight_bits: of the weight; where a layer has several, on average over their elements.
        bias_bits: of the bias.
        input_bits: of the first input, as it is multiplied; of several calls, on average over the products.
        output_bits: of what it returns.
        granularity: of the weight's scale, or of the output's where there is no weight.
        restriction: which numbers that scale may be: ``float``, ``log_float``, ``power_of_two``, ``int``, or another word.
        parameters: how many there are, without those of quantizers, and without those that an earlier row has; of a weight norm
            or another parametrization, those that the layer computes with.
        float_bytes: what they take as floats of their dtype.
        quantized_bytes: what they take as integers, each tensor rounded up to whole bytes; what is not quantized stays as it is.
        macs: how many products are added up, in all calls.
        bops: bit operations, ``Σ macs · bits · bits`` of both operands; a float counts as many bits as its dtype has.
        accumulator_bits: that hold every sum that the weight and the range of the input allow.
        weight_sqnr: signal-to-noise ratio of the weight's quantization, in dB.
        sqnr: the same of the activation that the layer quantizes, on the inputs that were given.
        saturation: the share of its elements that lie beyond the range of the integers.
    """

    path: str
    type: str
    weight_bits: float | None = None
    bias_bits: float | None = None
    input_bits: float | None = None
    output_bits: float | None = None
    granularity: str | None = None
    restriction: str | None = None
    parameters: int = 0
    float_bytes: int = 0
    quantized_bytes: int = 0
    macs: int = 0
    bops: int = 0
    accumulator_bits: int | None = None
    weight_sqnr: float | None = None
    sqnr: float | None = None
    saturation: float | None = None


@dataclass(frozen=True, kw_only=True)
class ModelReport:
    """The report of a model; ``str`` of it is a table.

    Attributes:
        rows: the layers, in the order in which they are first called, then those that are not called.

    >>> report = ModelReport(rows=(LayerRow(path="fc", type="QuantLinear", macs=12), LayerRow(path="out", type="Linear", macs=3)))
    >>> report.total("macs")
    15
    """

    rows: tuple[LayerRow, ...]

    def total(self, name: str) -> int:
        """The sum of a column: ``parameters``, ``float_bytes``, ``quantized_bytes``, ``macs`` or ``bops``."""
        return sum(getattr(row, name) for row in self.rows)

    def row(self, path: str) -> LayerRow:
        """The row of a layer.

        Raises:
            KeyError: when there is none.
        """
        found = {row.path: row for row in self.rows}
        return found[path]

    def as_dict(self) -> dict[str, Any]:
        """As JSON takes it: ``layers``, a list of rows, and ``total``, the sums."""
        return {"layers": [asdict(row) for row in self.rows], "total": {name: self.total(name) for name in TOTALS}}

    def __str__(self) -> str:
        from quant_nn.report.table import text

        return text(self)


TOTALS = ("parameters", "float_bytes", "quantized_bytes", "macs", "bops")
"""The columns that add up."""


def columns_in_use(rows: Iterable[LayerRow]) -> list[str]:
    """The names of the columns that say something in some row."""
    listed = list(rows)
    return [
        field.name for field in fields(LayerRow) if any(getattr(row, field.name) not in (None, 0) for row in listed)
    ]
