"""The code of the command of good_targets.py; used by test_quant_plugins.py."""

from __future__ import annotations

import click


@click.command()
@click.option("--name", default="world")
def hello(name: str) -> None:
    """Say hello."""
    click.echo(f"hello {name}")


not_a_command = 3
