"""``quant plugins``: what is installed, and what became of it."""

from __future__ import annotations

import dataclasses

import click

from quant_core.cli.output import print_json, print_table
from quant_core.plugins import registry


@click.command("plugins")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plugins_command(as_json: bool) -> None:
    """List the installed plugins with their status."""
    plugins = registry().plugins
    if as_json:
        print_json([dataclasses.asdict(plugin) for plugin in plugins])
        return
    rows = [(p.name, p.distribution, p.version, p.status, p.reason) for p in plugins]
    print_table(("plugin", "package", "version", "status", "reason"), rows)
