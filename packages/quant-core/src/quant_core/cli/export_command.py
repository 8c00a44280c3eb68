"""``quant export TARGET MODEL``: the command line, read as far as that goes without importing torch."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import click

from quant_core.cli.errors import ArgumentError, json_option
from quant_core.cli.export_request import ExportRequest, print_check, print_exported, run_check, run_export
from quant_core.cli.inputs import DTYPES, parse_inputs
from quant_core.cli.listing import print_targets
from quant_core.cli.model_reference import parse_model
from quant_core.cli.options import parse_options
from quant_core.cli.output_file import OutputFile
from quant_core.cli.weights import check_weights_file
from quant_core.plugins import registry

T = TypeVar("T")


@click.command("export", short_help="Export a model to a target.")
@click.argument("target", required=False)
@click.argument("model", required=False)
@click.option("--list-targets", is_flag=True, help="List the installed targets.")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="[NAME=]SHAPE[:DTYPE]",
    help=f"An example input, such as 1x3x32x32 or 1x16:int64; once for each. DTYPE: {', '.join(DTYPES)}.",
)
@click.option("--weights", type=click.Path(path_type=Path), metavar="FILE", help="A file with a state dict.")
@click.option("-o", "--output", type=OutputFile(), metavar="FILE", help="The file to write.")
@click.option("--check", is_flag=True, help="Report what the target cannot take, and write nothing.")
@click.option("--no-verify", is_flag=True, help="Do not compare the artifact with the model.")
@click.option("--dynamic-batch", is_flag=True, help="Let axis 0 of every input vary.")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="An option of the target.")
@click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Seed of the example inputs."
)
@json_option
@click.pass_context
def export_command(
    context: click.Context,
    target: str | None,
    model: str | None,
    list_targets: bool,
    inputs: tuple[str, ...],
    weights: Path | None,
    output: Path | None,
    check: bool,
    no_verify: bool,
    dynamic_batch: bool,
    options: tuple[str, ...],
    seed: int,
    as_json: bool,
) -> None:
    """Export MODEL to TARGET, compare the result with the model, and write it to a file.

    MODEL is file.py:name or package.module:name, where the name stands for a class or a function that is called without
    arguments, or for a module. It is exported as it computes in eval mode.

    \b
    quant export --list-targets
    quant export qcdq net.py:Net --weights net.pt --input 1x3x32x32 -o net.onnx

    Exit codes: 0 done, 1 refused or not equal, 2 usage.
    """
    if list_targets:
        _refuse_beside_listing(context)
        print_targets(registry(), as_json=as_json)
        return
    request = ExportRequest(
        target=registry().target(_given("TARGET", target)).item,
        model=parse_model(_given("MODEL", model)),
        weights=weights,
        inputs=parse_inputs(inputs),
        seed=seed,
        dynamic_batch=dynamic_batch,
        options=parse_options(options),
    )
    if weights is not None:
        check_weights_file(weights)
    if check:
        report = run_check(request)
        print_check(report, as_json=as_json)
        context.exit(0 if report.ok else 1)
    path = _given("--output", output)
    _keep_apart(path, request)
    done = run_export(request, path, verify=not no_verify)
    print_exported(done, request, path, verify=not no_verify, as_json=as_json)


def _refuse_beside_listing(context: click.Context) -> None:
    """A listing reads ``--json`` only; what else is given asks for something else."""
    for parameter in context.command.params:
        name = parameter.name or ""
        given = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if given and name not in ("list_targets", "as_json"):
            label = parameter.opts[-1] if isinstance(parameter, click.Option) else name.upper()
            raise ArgumentError(
                f"{label} has no effect beside --list-targets",
                where="quant export",
                why="a listing exports nothing, and reads --json only",
                fix=f"Leave --list-targets out to export, or {label} to list.",
            )


def _keep_apart(output: Path, request: ExportRequest) -> None:
    """The file that is written must be none of those that are read."""
    read = {"--weights": request.weights, "MODEL": Path(request.model.source) if request.model.is_file else None}
    for name, source in read.items():
        if source is not None and output.exists() and source.exists() and output.samefile(source):
            raise ArgumentError(
                f"--output would overwrite {name}",
                where=str(output),
                why="the export reads that file, and would replace it by the artifact",
                fix=f"Write to another file, for example {output.with_suffix(request.target.suffix)}.",
            )


def _given(name: str, value: T | None) -> T:
    if value is None:
        raise ArgumentError(
            f"{name} is missing",
            where="quant export",
            why="an export needs a target, a model, the shapes of its inputs and a file to write",
            fix="Write, for example, quant export qcdq net.py:Net --input 1x3x32x32 -o net.onnx.",
        )
    return value
