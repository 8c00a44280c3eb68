"""The ``quant`` command: its built-in sub-commands, and those of plugins."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, entry_points, version
from typing import Any

import click

from quant_core.cli.errors import report
from quant_core.cli.export_command import export_command
from quant_core.cli.plugins_command import plugins_command
from quant_core.cli.show_command import show_command
from quant_core.errors import PluginError, QuantError, UnknownNameError, did_you_mean
from quant_core.plugins import load_attribute, registry
from quant_core.plugins.loading import source_of


class QuantGroup(click.Group):
    """A group that finds sub-commands in the registry too, and prints every error of this project as one."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a sub-command; an error is printed and becomes the exit code."""
        try:
            return super().invoke(ctx)
        except QuantError as error:
            report(error, ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The built-in commands, then those of plugins."""
        return [*sorted(self.commands), *registry().commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A built-in command, which needs no plugin, or one of a plugin, which is imported now."""
        built_in = super().get_command(ctx, cmd_name)
        if built_in is not None or cmd_name not in registry().commands:
            return built_in
        registered = registry().commands[cmd_name]
        command = load_attribute(registered.item.command)
        if not isinstance(command, click.Command):
            raise PluginError(
                f"the command {cmd_name!r} cannot be run",
                where=f"{registered.distribution} {registered.version}",
                why=f"{registered.item.command!r} is a {type(command).__name__}, not a click command",
                fix="Report this to the authors of that package.",
            )
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The sub-command that is asked for.

        Raises:
            UnknownNameError: when there is none of that name.
        """
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            known = self.list_commands(ctx)
            raise UnknownNameError(
                f"unknown command {name!r}",
                why=f"the commands are {', '.join(known)}",
                fix=did_you_mean(name, known),
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands of plugins by what they say of themselves, without importing their code."""
        rows = [(name, command.get_short_help_str()) for name, command in sorted(self.commands.items())]
        try:
            rows += [(name, registered.item.summary) for name, registered in registry().commands.items()]
        except PluginError as conflict:
            click.echo(f"{type(conflict).__name__}: {conflict}", err=True)
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _print_version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    click.echo(f"quant-core {version('quant-core')}")
    for name, of_plugin in sorted({source_of(point) for point in entry_points(group="quant")}):
        if name != "quant-core":
            click.echo(f"{name} {of_plugin}")
    try:
        click.echo(f"torch {version('torch')}")
    except PackageNotFoundError:
        click.echo("torch is not installed")
    click.echo(f"python {platform.python_version()}")
    ctx.exit()


@click.group(cls=QuantGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the versions of quant-core, of all plugins, of torch and of Python.",
)
def quant() -> None:
    """Export quantized networks, and see what is installed for that.

    Exit codes: 0 done, 1 refused or not equal, 2 usage.
    """


quant.add_command(export_command)
quant.add_command(plugins_command)
quant.add_command(show_command)


def main() -> None:
    """Run the command and leave the interpreter with its exit code."""
    quant(prog_name="quant")
