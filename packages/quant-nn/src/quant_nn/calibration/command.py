"""``quant calibrate MODEL --data FILE.npz``: calibration from the command line."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from quant_core.cli.errors import ArgumentError, json_option
from quant_core.cli.model_reference import load_model, parse_model
from quant_core.cli.options import parse_options
from quant_core.cli.output import print_json
from quant_core.cli.output_file import OutputFile
from quant_core.cli.weights import check_weights_file, load_weights
from quant_nn.calibration.npz import batches_of, read_arrays

if TYPE_CHECKING:
    from quant_nn.calibration.report import CalibrationReport


@click.command("calibrate", short_help="Find the ranges of a model's quantizers in data.")
@click.argument("model")
@click.option(
    "--data",
    required=True,
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE.npz",
    help="The inputs; may be given several times.",
)
@click.option("--method", default="auto", show_default=True, help="max, entropy, percentile, mse or statistics.")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="An option of the method.")
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Samples in a batch.")
@click.option("--weights", type=click.Path(path_type=Path), metavar="FILE", help="A file with a state dict.")
@click.option("--again", is_flag=True, help="Also calibrate what is calibrated already.")
@click.option("-o", "--output", required=True, type=OutputFile(), metavar="FILE", help="The file to write.")
@json_option
def calibrate_command(
    model: str,
    data: tuple[Path, ...],
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
    that numpy.savez named itself (arr_0, arr_1, …), and one that is alone, are positional inputs; others are keywords. Arrays of
    floats are converted to the precision of the model; integers stay integers.

    \b
    quant calibrate net.py:Net --weights float.pt --data a.npz --data b.npz --method entropy -o calibrated.pt
    quant export qcdq net.py:Net --weights calibrated.pt --input 1x3x32x32 -o net.onnx

    Exit codes: 0 done, 1 refused, 2 usage.
    """
    reference = parse_model(model)
    given = parse_options(options)
    if weights is not None:
        check_weights_file(weights)
    _keep_apart(output, [*(("--data", path) for path in data), ("MODEL", Path(reference.source))])
    with contextlib.redirect_stdout(sys.stderr):  # what the model's own code prints is no result
        import torch

        from quant_core.export.files import check_writable, write_atomically
        from quant_nn.calibration.calibrate import calibrate
        from quant_nn.calibration.methods import method_of

        method_of(method, **given)  # others are arguments of calibrate() that have an option of their own here
        check_writable(output)
        files = read_arrays(data)
        loaded = load_model(reference)
        if weights is not None:
            load_weights(loaded, weights)
        dtypes = (parameter.dtype for parameter in loaded.parameters() if parameter.is_floating_point())
        batches = batches_of(files, batch_size, next(dtypes, torch.get_default_dtype()))
        report = calibrate(loaded, batches, method, again=again, **given)
        content = io.BytesIO()
        torch.save(loaded.state_dict(), content)
        write_atomically(output, content.getvalue())
    print_report(report, output, as_json=as_json)


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


def _keep_apart(output: Path, read: Iterable[tuple[str, Path]]) -> None:
    """The file that is written may be that of the weights, and none of the others that are read."""
    for name, source in read:
        if output.exists() and source.exists() and output.samefile(source):
            raise ArgumentError(
                f"--output would overwrite {name}",
                where=str(output),
                why="the command reads that file, and would replace it by the weights",
                fix=f"Write to another file, for example {output.with_suffix('.pt')}.",
            )
