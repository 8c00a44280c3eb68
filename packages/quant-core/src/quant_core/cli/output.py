"""What the ``quant`` command prints: tables for people, JSON for programs."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

import click

_WIDTH_OF_A_PIPE: Final = 10_000
_UNITS: Final = ("B", "kB", "MB", "GB")


def print_json(value: Any) -> None:
    """Print a value as indented JSON on standard output.

    >>> print_json({"ok": True})
    {
      "ok": true
    }
    """
    click.echo(json.dumps(value, indent=2))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table on standard output. In a pipe it is as wide as its cells, so that nothing is broken or cut.

    >>> print_table(["target", "size"], [["qcdq", "12.3 kB"]])
    target   size
    ────────────────
    qcdq     12.3 kB
    """
    from rich import box  # the slowest import of a listing: only where there is a table to print
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    terminal = sys.stdout is not None and sys.stdout.isatty()  # without standard output there is nothing to print on
    console = Console(file=sys.stdout or io.StringIO(), width=None if terminal else _WIDTH_OF_A_PIPE)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


def readable_size(count: int) -> str:
    """A number of bytes for people, in powers of 1000.

    >>> readable_size(999), readable_size(19381), readable_size(2_500_000)
    ('999 B', '19.4 kB', '2.5 MB')
    """
    size, unit = float(count), 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{count} B" if unit == 0 else f"{size:.1f} {_UNITS[unit]}"
