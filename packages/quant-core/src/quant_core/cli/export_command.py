"""``quant export``: a model to a target's file, checked and verified."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quant_core.cli.inputs import InputShape, example_input
from quant_core.cli.output import print_error, print_json, print_table, size_of
from quant_core.errors import ArtifactError, LoadError, QuantError, UnknownNameError
from quant_core.plugins import registry

if TYPE_CHECKING:
    from quant_core.export import CheckReport, Exported

_USAGE = (LoadError, UnknownNameError)


def _list_targets(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    targets = registry().targets
    rows = [(name, r.item.summary, r.distribution, r.version, "active") for name, r in targets.items()]
    columns = ("target", "summary", "package", "version", "status")
    if "--json" in sys.argv:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        print_table(columns, rows)
    ctx.exit()


@click.command("export")
@click.option(
    "--list-targets",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_targets,
    help="List the installed targets and exit.",
)
@click.argument("target")
@click.argument("model")
@click.option("--weights", type=click.Path(path_type=Path), help="A state_dict to load into the model.")
@click.option("--input", "inputs", type=InputShape(), multiple=True, required=True, help="Shape of an input; repeat it.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file to write.")
@click.option("--check", "check_only", is_flag=True, help="Only say what the target cannot take; write nothing.")
@click.option("--no-verify", is_flag=True, help="Do not compare the file with the model.")
@click.option("--dynamic-batch", is_flag=True, help="Let the first axis of every input vary.")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="An option of the target; repeat it.")
@click.option("--seed", default=0, show_default=True, help="Seed of the example inputs.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def export_command(
    target: str,
    model: str,
    weights: Path | None,
    inputs: tuple[tuple[tuple[int, ...], str], ...],
    output: Path | None,
    check_only: bool,
    no_verify: bool,
    dynamic_batch: bool,
    options: tuple[str, ...],
    seed: int,
    as_json: bool,
) -> None:
    """Export MODEL (file.py:name or package.module:name) to TARGET.

    MODEL is a class or a function without arguments, or an instance. It is exported as it computes in eval mode, on random
    example inputs of the given shapes, and compared with the result. Exit codes: 0 done, 1 refused or not equal, 2 usage.
    """
    if output is None and not check_only:
        raise click.UsageError("Missing option '-o': the file to write. Use --check to write nothing.")
    settings = dict(_option(text) for text in options)
    shapes = "batch" if dynamic_batch else None
    try:
        _run(target, model, weights, inputs, output, check_only, not no_verify, shapes, settings, seed, as_json)
    except QuantError as error:
        print_error(error, as_json=as_json)
        sys.exit(2 if isinstance(error, _USAGE) else 1)


def _run(
    target: str,
    model: str,
    weights: Path | None,
    inputs: tuple[tuple[tuple[int, ...], str], ...],
    output: Path | None,
    check_only: bool,
    verify: bool,
    shapes: str | None,
    settings: dict[str, Any],
    seed: int,
    as_json: bool,
) -> None:
    registry().target(target)  # a wrong name is found before torch is imported
    from quant_core.cli.model_reference import load_model
    from quant_core.cli.weights import load_weights
    from quant_core.export import capture, check, export
    from quant_core.export.files import check_writable

    if output is not None:
        check_writable(output)
    net = load_model(model)
    if weights is not None:
        load_weights(net, weights)
    args = tuple(example_input(shape, dtype, seed + number) for number, (shape, dtype) in enumerate(inputs))
    if check_only:
        _report_check(check(capture(net, args, dynamic_shapes=shapes), target), as_json)
        return
    done = export(net, args, target=target, path=output, verify=verify, dynamic_shapes=shapes, options=settings)
    _report_export(done, as_json)


def _report_check(report: CheckReport, as_json: bool) -> None:
    if as_json:
        fields = ("where", "op", "actual", "constraint", "fix")
        refusals = [{name: getattr(refusal, name) for name in fields} for refusal in report.refusals]
        print_json({"target": report.target, "ok": report.ok, "refusals": refusals})
    else:
        click.echo(str(report))
    if not report.ok:
        sys.exit(1)


def _report_export(done: Exported, as_json: bool) -> None:
    if done.path is None:
        raise ArtifactError("nothing was written", why="no path was given", fix="Give one with -o.")
    verified = done.verification
    if as_json:
        print_json(
            {
                "target": done.artifact.target,
                "file": str(done.path),
                "size": done.artifact.size,
                "verified": verified is not None,
                "largest_difference": None if verified is None else verified.max_difference,
                "ties": None if verified is None else verified.ties,
                "seconds": round(done.seconds, 3),
            }
        )
        return
    difference = "not verified" if verified is None else f"{verified.max_difference:.3g}"
    row = (done.artifact.target, str(done.path), size_of(done.artifact.size), difference, f"{done.seconds:.1f} s")
    print_table(("target", "file", "size", "largest difference", "time"), [row])


def _option(text: str) -> tuple[str, Any]:
    """``KEY=VALUE``, with the value as JSON where it is, as text otherwise."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise click.UsageError(f"{text!r} is not an option of a target; write KEY=VALUE.")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value
