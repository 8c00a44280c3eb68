"""Bits and noise along the network, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from quant_core.errors import ArtifactError, ConfigurationError
from quant_core.export.files import check_writable, write_atomically
from quant_nn.report.rows import ModelReport

SUFFIXES: Final = (".png", ".svg")
_INCHES_PER_LAYER: Final = 0.45


def check_plot(path: Path) -> None:
    """Find out before any work whether a picture can be drawn and written there.

    Raises:
        ConfigurationError: for a file name that ends in neither ``.png`` nor ``.svg``.
        ArtifactError: when matplotlib is not installed, or the file cannot be written.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigurationError(
            f"{path.name!r} is no name of a picture",
            where=str(path),
            why=f"a plot is written as {' or '.join(SUFFIXES)}",
            fix=f"Write, for example, {path.with_suffix('.svg')}.",
        )
    _figure_class()
    check_writable(path)


def plot(report: ModelReport, path: str | Path) -> Path:
    """Draw the bits of weights and activations, and the signal-to-noise ratios where they are known, layer by layer.

    Raises:
        ConfigurationError: for a file name that ends in neither ``.png`` nor ``.svg``.
        ArtifactError: when matplotlib is not installed, or the file cannot be written.
    """
    import io

    place = Path(path)
    check_plot(place)
    rows = report.rows
    noisy = any(row.sqnr is not None or row.weight_sqnr is not None for row in rows)
    width = max(4.0, 1.5 + _INCHES_PER_LAYER * len(rows))
    figure: Any = _figure_class()(figsize=(width, 6.0 if noisy else 3.5), layout="constrained")
    axes = figure.subplots(2 if noisy else 1, sharex=True, squeeze=False)[:, 0]
    _draw(axes[0], rows, {"weight": "weight_bits", "output": "output_bits"}, "bits")
    axes[0].set_ylim(bottom=0)
    if noisy:
        _draw(axes[1], rows, {"weight": "weight_sqnr", "activation": "sqnr"}, "SQNR in dB")
    axes[-1].set_xticks(range(len(rows)), [row.path or row.type for row in rows], rotation=90)
    stream = io.BytesIO()
    figure.savefig(stream, format=place.suffix[1:].lower(), metadata={"Date": None} if place.suffix == ".svg" else None)
    write_atomically(place, stream.getvalue())
    return place


def _draw(axes: Any, rows: Any, columns: dict[str, str], label: str) -> None:
    for name, column in columns.items():
        points = [(index, getattr(row, column)) for index, row in enumerate(rows) if getattr(row, column) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set_ylabel(label)
    axes.grid(visible=True, alpha=0.3)
    if axes.get_lines():
        axes.legend()


def _figure_class() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as missing:
        raise ArtifactError(
            "the report cannot be drawn",
            why=f"{missing.name} is not installed",
            fix="Install it: pip install 'quant-nn[plot]'",
        ) from missing
    return Figure
