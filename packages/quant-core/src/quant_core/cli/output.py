"""What the command prints: tables for people, JSON for programs, errors in four parts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from quant_core.errors import QuantError


def print_json(content: Any) -> None:
    """Print an object as JSON."""
    click.echo(json.dumps(content, indent=2))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under headings, as wide as the terminal allows."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(soft_wrap=False, highlight=False).print(table)


def print_error(error: QuantError, *, as_json: bool) -> None:
    """Print an error: as JSON on standard output, or for people on standard error."""
    if as_json:
        parts = {"what": error.what, "where": error.where, "why": error.why, "fix": error.fix}
        print_json({"error": {"type": type(error).__name__, **parts}})
    else:
        click.echo(f"{type(error).__name__}: {error}", err=True)


def size_of(count: int) -> str:
    """A number of bytes for people.

    >>> size_of(512), size_of(20_480)
    ('512 B', '20.0 KiB')
    """
    size, unit = float(count), "B"
    for bigger in ("KiB", "MiB", "GiB"):
        if size < 1024:
            break
        size, unit = size / 1024, bigger
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
