"""The ``quant`` command and its sub-commands; those of plugins are listed beside the built-in ones."""

from __future__ import annotations

import sys
from importlib.metadata import distributions

import click

from quant_core.cli.export_command import export_command
from quant_core.cli.output import print_error
from quant_core.cli.plugins_command import plugins_command
from quant_core.errors import PluginError, QuantError
from quant_core.plugins import load_attribute, registry

_OURS = ("quant-", "export-")


class _Commands(click.Group):
    """The built-in commands, then those that plugins register, loaded when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *registry().commands})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        built_in = super().get_command(ctx, cmd_name)
        registered = registry().commands.get(cmd_name) if built_in is None or cmd_name in registry().commands else None
        if registered is None:
            return built_in
        if built_in is not None:
            raise PluginError(
                f"a plugin registers the command {cmd_name!r}, which is built in",
                where=f"{registered.distribution} {registered.version}",
                why="a plugin cannot replace a command of quant itself",
                fix=f"Name {registered.distribution} in QUANT_DISABLE_PLUGINS, or ask its authors for another name.",
            )
        command = load_attribute(registered.item.command)
        if not isinstance(command, click.Command):
            raise PluginError(
                f"the command {cmd_name!r} is a {type(command).__name__}",
                where=f"{registered.distribution} {registered.version}",
                why=f"{registered.item.command} is not a click command",
                fix="Report this to the authors of the plugin.",
            )
        return command


def _print_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    found = {dist.name: dist.version for dist in distributions() if dist.name and dist.name.startswith(_OURS)}
    for name in sorted(found, key=lambda name: (name != "quant-core", name)):
        click.echo(f"{name} {found[name]}")
    ctx.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show versions and exit."
)
def quant() -> None:
    """Quantized networks: export them, and see what is installed."""


quant.add_command(export_command)
quant.add_command(plugins_command)


def main() -> None:
    """Run ``quant``. Exit codes: 0 done, 1 refused or not equal, 2 usage."""
    try:
        quant(standalone_mode=True)
    except QuantError as error:
        print_error(error, as_json="--json" in sys.argv)
        sys.exit(1)


if __name__ == "__main__":
    main()
