"""How the ``quant`` command ends when something is wrong: the exit code, and the text on standard error or the JSON."""

from __future__ import annotations

import dataclasses
from typing import Any, Final, Literal

import click

from quant_core.cli.output import print_json
from quant_core.errors import LoadError, QuantError, UnknownNameError, UnsupportedError

JSON_KEY: Final = "quant_core.cli.json"
"""Where a command leaves, in ``click.Context.meta``, that it was asked for JSON."""


class ArgumentError(QuantError, ValueError):
    """An argument on the command line that means nothing."""


def exit_code(error: QuantError) -> Literal[1, 2]:
    """2 when the command cannot be carried out as it was given, 1 when it was and the answer is no.

    An argument without meaning, an unknown target, a model or a weights file that cannot be loaded: 2. A refused model,
    an artifact that is not equal, a file that cannot be written, a broken plugin: 1.

    >>> exit_code(ArgumentError("bad shape", why="not numbers", fix="Write 1x3x32x32."))
    2
    """
    return 2 if isinstance(error, (ArgumentError, LoadError, UnknownNameError)) else 1


def as_json(error: QuantError) -> dict[str, Any]:
    """An error as data, with all refusals where there are any.

    >>> as_json(ArgumentError("bad shape", why="not numbers", fix="Write 1x3x32x32."))["error"]["type"]
    'ArgumentError'
    """
    fields: dict[str, Any] = {
        "type": type(error).__name__,
        "what": error.what,
        "where": error.where,
        "why": error.why,
        "fix": error.fix,
    }
    if isinstance(error, UnsupportedError):
        fields["refusals"] = [dataclasses.asdict(refusal) for refusal in error.refusals]
    return {"error": fields}


def report(error: QuantError, context: click.Context) -> None:
    """Print an error in the form that the command was asked for, and exit."""
    if context.meta.get(JSON_KEY):
        print_json(as_json(error))
    else:
        click.echo(f"{type(error).__name__}: {error}", err=True)
    context.exit(exit_code(error))


def _remember(context: click.Context, parameter: click.Parameter, value: bool) -> bool:
    context.meta[JSON_KEY] = value
    return value


json_option = click.option(
    "--json", "as_json", is_flag=True, is_eager=True, callback=_remember, help="Print JSON, errors included."
)
"""``--json``, known before any other argument is looked at, so that errors in those come out as JSON too."""
