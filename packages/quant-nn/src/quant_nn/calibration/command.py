"""``quant calibrate MODEL --data FILE.npz``: calibration from the command line."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quant_core.cli.errors import ArgumentError, json_option
from quant_core.cli.model_reference import load_model, parse_model
from quant_core.cli.options import parse_options
from quant_core.cli.output import print_json
from quant_core.cli.weights import check_weights_file, load_weights
from quant_core.errors import LoadError

if TYPE_CHECKING:
    from quant_nn.calibration.report import CalibrationReport


@click.command("calibrate", short_help="Find the ranges of a model's quantizers in data.")
@click.argument("model")
@click.option("--data", required=True, type=click.Path(path_type=Path), metavar="FILE.npz", help="The inputs.")
@click.option("--method", default="auto", show_default=True, help="max, entropy, percentile, mse or statistics.")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="An option of the method.")
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Samples in a batch.")
@click.option("--weights", type=click.Path(path_type=Path), metavar="FILE", help="A file with a state dict.")
@click.option("--again", is_flag=True, help="Also calibrate what is calibrated already.")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), metavar="FILE", help="The file to write."
)
@json_option
def calibrate_command(
    model: str,
    data: Path,
    method: str,
    options: tuple[str, ...],
    batch_size: int,
    weights: Path | None,
    again: bool,
    output: Path,
    as_json: bool,
) -> None:
    """Run MODEL on data in full precision, set the ranges of its quantizers, and write its state dict to a file.

    MODEL is file.py:name or package.module:name, as for quant export. Axis 0 of every array in FILE.npz counts samples. Arrays
    that numpy.savez named itself (arr_0, arr_1, …), and one that is alone, are positional inputs; others are keywords.

    \b
    quant calibrate net.py:Net --weights float.pt --data images.npz --method entropy -o calibrated.pt
    quant export qcdq net.py:Net --weights calibrated.pt --input 1x3x32x32 -o net.onnx

    Exit codes: 0 done, 1 refused, 2 usage.
    """
    reference = parse_model(model)
    given = parse_options(options)
    if weights is not None:
        check_weights_file(weights)
    _keep_apart(output, {"--data": data, "MODEL": Path(reference.source)})
    with contextlib.redirect_stdout(sys.stderr):  # what the model's own code prints is no result
        import torch

        from quant_core.export.files import check_writable, write_atomically
        from quant_nn.calibration.calibrate import calibrate

        check_writable(output)
        batches = read_batches(data, batch_size)
        loaded = load_model(reference)
        if weights is not None:
            load_weights(loaded, weights)
        report = calibrate(loaded, batches, method, again=again, **given)
        content = io.BytesIO()
        torch.save(loaded.state_dict(), content)
        write_atomically(output, content.getvalue())
    print_report(report, output, as_json=as_json)


def read_batches(path: Path, batch_size: int) -> list[Any]:
    """The batches in a file that ``numpy.savez`` wrote.

    Raises:
        LoadError: when numpy is not installed, or the file cannot be read.
        ArgumentError: when the arrays do not fit each other.
    """
    import torch

    arrays = {name: torch.from_numpy(array) for name, array in _read(path).items()}
    lengths = {name: len(array) if array.dim() else 0 for name, array in arrays.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        listed = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise ArgumentError(
            f"{path.name!r} holds no samples that fit each other",
            where="--data",
            why=f"axis 0 of every array counts samples, and they are {listed or 'none'}",
            fix="Save arrays with as many samples each, for example numpy.savez('data.npz', images).",
        )
    positional = len(arrays) == 1 or all(name.startswith("arr_") for name in arrays)
    split = {name: array.split(batch_size) for name, array in arrays.items()}
    batches = zip(*split.values(), strict=True)
    return [tuple(batch) if positional else dict(zip(split, batch, strict=True)) for batch in batches]


def print_report(report: CalibrationReport, output: Path, *, as_json: bool) -> None:
    """Print what was found."""
    if not as_json:
        click.echo(str(report))
        click.echo(f"written to {output}")
        return
    rows = [
        {
            "name": found.name,
            "threshold": found.threshold.flatten().tolist(),
            "largest": None if found.largest is None else found.largest.flatten().tolist(),
            "elements": found.elements,
        }
        for found in report.quantizers
    ]
    print_json({"file": str(output), "method": report.method, "batches": report.batches, "quantizers": rows})


def _keep_apart(output: Path, read: dict[str, Path]) -> None:
    """The file that is written may be that of the weights, and none of the others that are read."""
    for name, source in read.items():
        if output.exists() and source.exists() and output.samefile(source):
            raise ArgumentError(
                f"--output would overwrite {name}",
                where=str(output),
                why="the command reads that file, and would replace it by the weights",
                fix=f"Write to another file, for example {output.with_suffix('.pt')}.",
            )


def _read(path: Path) -> dict[str, Any]:
    try:
        import numpy as np
    except ImportError as missing:
        raise LoadError(
            f"{path.name!r} cannot be read",
            where="--data",
            why="numpy is not installed",
            fix="Install it: pip install numpy.",
        ) from missing
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in sorted(file.files, key=_order)}
    except (OSError, ValueError, EOFError, AttributeError) as failure:
        raise LoadError(
            f"{path.name!r} cannot be read",
            where=str(path),
            why=f"{type(failure).__name__}: {failure}",
            fix="Give a file that numpy.savez wrote, of arrays of numbers.",
        ) from failure


def _order(name: str) -> tuple[int, str]:
    """``arr_10`` comes after ``arr_9``."""
    number = name.removeprefix("arr_")
    return (int(number), "") if number.isdigit() else (-1, name)
