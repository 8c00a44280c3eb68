"""How much each layer suffers: as a table, as JSON, as a plot."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quant_core.errors import ConfigurationError
from quant_nn.calibration.report import table_text


@dataclass(frozen=True, kw_only=True)
class LayerSensitivity:
    """What the output loses when only one layer is quantized.

    Attributes:
        name: the path of the layer.
        sqnr: ``10 · log10(Σ y² / Σ (y − ŷ)²)`` in decibels, of the output of the model; infinite where nothing changes.
        loss_change: how much the loss grows; ``None`` where no loss was given.
    """

    name: str
    sqnr: float
    loss_change: float | None


@dataclass(frozen=True, kw_only=True)
class SensitivityReport:
    """The layers, the most sensitive first; prints as a table.

    Attributes:
        layers: one row for each layer with quantizers.
        loss: the loss in full precision; ``None`` where no loss was given.
    """

    layers: tuple[LayerSensitivity, ...]
    loss: float | None

    def __str__(self) -> str:
        if self.loss is None:
            return table_text(("layer", "SQNR in dB"), [(row.name, f"{row.sqnr:.1f}") for row in self.layers])
        rows = [(row.name, f"{row.sqnr:.1f}", f"{row.loss_change:+.4g}") for row in self.layers]
        return f"loss in full precision: {self.loss:.4g}\n" + table_text(
            ("layer", "SQNR in dB", "change of loss"), rows
        )

    def to_json(self) -> str:
        """The same as JSON, with ``null`` for an infinite SQNR.

        >>> SensitivityReport(layers=(LayerSensitivity(name="a", sqnr=30.0, loss_change=None),), loss=None).to_json()
        '{"loss": null, "layers": [{"name": "a", "sqnr": 30.0, "loss_change": null}]}'
        """
        rows = [
            {
                "name": row.name,
                "sqnr": row.sqnr if math.isfinite(row.sqnr) else None,
                "loss_change": row.loss_change,
            }
            for row in self.layers
        ]
        return json.dumps({"loss": self.loss, "layers": rows})

    def plot(self, path: str | Path | None = None) -> Any:
        """A horizontal bar for each layer: the change of loss where a loss was given, else the SQNR.

        Args:
            path: the file to write, whose ending says what kind; nothing is written by default.

        Returns:
            The ``matplotlib`` figure.

        Raises:
            ConfigurationError: when matplotlib is not installed.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as missing:
            raise ConfigurationError(
                "the report cannot be plotted",
                why="matplotlib is not installed",
                fix="Install it: pip install 'quant-nn[plot]'.",
            ) from missing
        rows = self.layers[::-1]  # the first is at the top
        values = [row.sqnr if row.loss_change is None else row.loss_change for row in rows]
        figure = Figure(figsize=(7, 1 + 0.3 * len(rows)), layout="constrained")
        axes = figure.subplots()
        finite = [value if math.isfinite(value) else 0.0 for value in values]
        axes.barh(range(len(rows)), finite, tick_label=[row.name for row in rows])
        axes.set_xlabel("SQNR in dB, only this layer quantized" if self.loss is None else "change of loss")
        if path is not None:
            figure.savefig(path)
        return figure
