"""The file that a command writes, as it is given on the command line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from quant_core.cli.errors import ArgumentError


class OutputFile(click.Path):
    """The path of a file, of which a path that ends as those of directories do is none."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path.

        Raises:
            ArgumentError: for a directory that does not exist; of one that does, the writing says so.
        """
        text = os.fspath(value)
        if text.endswith(tuple(filter(None, (os.sep, os.altsep)))) and not os.path.isdir(text):
            raise ArgumentError(
                f"--output names the directory {text!r}",
                where="quant" if ctx is None else ctx.command_path,
                why="one file is written, and a path with a separator at its end is that of a directory",
                fix=f"Leave the separator out, or give the name of a file in it: {text}NAME",
            )
        return super().convert(value, param, ctx)
