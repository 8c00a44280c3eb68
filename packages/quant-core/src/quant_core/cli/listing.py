"""``quant export --list-targets``: what models can be exported to. Imports no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

import click

from quant_core.cli.output import print_json, print_table
from quant_core.plugins import Registered, Registry, Target

TargetStatus = Literal["ready", "runtime missing", "no runtime"]


@dataclass(frozen=True, kw_only=True)
class ListedTarget:
    """One row.

    Attributes:
        name: the target.
        summary: what it is.
        package: the distribution that provides it.
        version: the version of that distribution.
        status: ``"ready"`` when its artifacts can be exported and verified; ``"runtime missing"`` when the package that
            runs them is not installed, and ``"no runtime"`` when there is none: they can be exported, not verified.
        suffix: the usual end of its file names.
        runtime: the import name of the package that runs its artifacts.
    """

    name: str
    summary: str
    package: str
    version: str
    status: TargetStatus
    suffix: str
    runtime: str | None


def list_targets(plugins: Registry) -> tuple[ListedTarget, ...]:
    """All targets, by name.

    Raises:
        PluginError: when two plugins register one name.
    """
    return tuple(_listed(registered) for registered in plugins.targets.values())


def print_targets(plugins: Registry, *, as_json: bool) -> None:
    """Print the listing; plugins that cannot be used are mentioned on standard error."""
    rows = list_targets(plugins)
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    if rows:
        columns = ("target", "summary", "package", "version", "status")
        print_table(columns, [(row.name, row.summary, row.package, row.version, row.status) for row in rows])
    else:
        click.echo("No installed package registers a target. For standard ONNX: pip install export-qcdq")
    unused = [plugin.name for plugin in plugins.plugins if plugin.status != "active"]
    if unused:
        click.echo(f"Not in use: {', '.join(unused)}. `quant plugins` says why.", err=True)


def _listed(registered: Registered[Target]) -> ListedTarget:
    target = registered.item
    missing: TargetStatus = "no runtime" if target.runtime is None else "runtime missing"
    return ListedTarget(
        name=target.name,
        summary=target.summary,
        package=registered.distribution,
        version=registered.version,
        status="ready" if target.has_runtime else missing,
        suffix=target.suffix,
        runtime=target.runtime,
    )
