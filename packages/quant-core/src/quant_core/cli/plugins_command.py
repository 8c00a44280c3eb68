"""``quant plugins``: every installed plugin and what became of it."""

from __future__ import annotations

from dataclasses import asdict

import click

from quant_core.cli.errors import json_option
from quant_core.cli.output import print_json, print_table
from quant_core.plugins import registry


@click.command("plugins", short_help="List all plugins.")
@json_option
def plugins_command(as_json: bool) -> None:
    """List all plugins, with the reason for each that is not in use.

    QUANT_DISABLE_PLUGINS names plugins that are not loaded (entry points or packages, separated by commas, or * for
    all). With QUANT_STRICT_PLUGINS=1 every command fails while a plugin is broken or incompatible.
    """
    found = registry()
    if as_json:
        print_json(
            {
                "plugins": [
                    {
                        "name": plugin.name,
                        "package": plugin.distribution,
                        "version": plugin.version,
                        "status": plugin.status,
                        "reason": plugin.reason,
                    }
                    for plugin in found.plugins
                ],
                "conflicts": [asdict(conflict) for conflict in found.conflicts],
            }
        )
        return
    columns = ("plugin", "package", "version", "status", "reason")
    rows = [
        (plugin.name, plugin.distribution, plugin.version, plugin.status, plugin.reason) for plugin in found.plugins
    ]
    print_table(columns, rows)
    for conflict in found.conflicts:
        click.echo(f"Conflict: {conflict}.")
