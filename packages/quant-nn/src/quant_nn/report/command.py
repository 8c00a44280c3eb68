"""``quant summary MODEL``: the report on the command line."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import click

from quant_core.cli.errors import ArgumentError, json_option
from quant_core.cli.inputs import DTYPES, draw_inputs, parse_inputs
from quant_core.cli.model_reference import load_model, parse_model
from quant_core.cli.output import print_json, print_table
from quant_core.cli.weights import check_weights_file, load_weights
from quant_core.errors import LoadError


@click.command("summary", short_help="Show what each layer of a model costs.")
@click.argument("model")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="[NAME=]SHAPE[:DTYPE]",
    help=f"An example input, such as 1x3x32x32 or 1x16:int64; once for each. DTYPE: {', '.join(DTYPES)}.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A tensor, or a tuple of tensors, written by torch.save: the inputs, on which noise and saturation are measured.",
)
@click.option("--weights", type=click.Path(path_type=Path), metavar="FILE", help="A file with a state dict.")
@click.option(
    "--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw bits and noise into a .png or .svg."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the example inputs.")
@json_option
def summary_command(
    model: str,
    inputs: tuple[str, ...],
    data: Path | None,
    weights: Path | None,
    plot: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Show bits, sizes, products and bit operations of each layer of MODEL; with --data also what quantization loses.

    MODEL is file.py:name or package.module:name, where the name stands for a class or a function that is called without
    arguments, or for a module.

    \b
    quant summary net.py:Net --weights net.pt --input 1x3x32x32
    quant summary net.py:Net --weights net.pt --data images.pt --plot net.svg

    Exit codes: 0 done, 1 refused, 2 usage.
    """
    if data is None and not inputs:
        raise ArgumentError(
            "no inputs to run the model on",
            where="--input",
            why="products and the bits of activations are counted in one run",
            fix="Give the shape of each input, for example --input 1x3x32x32, or a file of tensors with --data.",
        )
    specs = parse_inputs(inputs) if inputs else ()
    reference = parse_model(model)
    if weights is not None:
        check_weights_file(weights)
    with contextlib.redirect_stdout(sys.stderr):  # what the model's own code prints
        from quant_nn.report.plot import check_plot
        from quant_nn.report.plot import plot as draw
        from quant_nn.report.summarizing import summary

        if plot is not None:
            check_plot(plot)
        args, kwargs = draw_inputs(specs, seed=seed)
        if data is not None:
            args = (*_load(data), *args)
        net = load_model(reference)
        if weights is not None:
            load_weights(net, weights)
        report = summary(net, args, kwargs, data=data is not None)
        if plot is not None:
            draw(report, plot)
    if as_json:
        print_json(report.as_dict())
    else:
        from quant_nn.report.table import cells

        print_table(*cells(report))


def _load(path: Path) -> tuple[Any, ...]:
    import torch

    try:
        found = torch.load(path, weights_only=True)
    except Exception as failure:
        raise LoadError(
            f"cannot read the data {path.name!r}",
            where=str(path),
            why=f"{type(failure).__name__}: {failure}",
            fix="Write it with torch.save(x, file), where x is a tensor or a tuple of tensors.",
        ) from failure
    tensors = tuple(found) if isinstance(found, list | tuple) else (found,)
    if not all(isinstance(tensor, torch.Tensor) for tensor in tensors):
        kinds = ", ".join(sorted({type(one).__name__ for one in tensors}))
        raise LoadError(
            f"the data {path.name!r} are no tensors",
            where=str(path),
            why=f"the inputs of the model are a tensor or a tuple of tensors, got {kinds}",
            fix="Write it with torch.save(x, file), where x is a tensor or a tuple of tensors.",
        )
    return tensors
