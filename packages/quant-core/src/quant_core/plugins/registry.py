"""What the installed plugins register, by kind and name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import EntryPoint, entry_points, version
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

from quant_core.errors import PluginError
from quant_core.plugins.conflicts import Conflict
from quant_core.plugins.hookspecs import PROJECT
from quant_core.plugins.loading import DISABLE_VARIABLE, HOOKS, Loaded, PluginStatus, load, source_of
from quant_core.plugins.providers import unknown_target
from quant_core.plugins.types import Command, Entry, Layer, Op, Quantizer, Shorthand, Target

STRICT_VARIABLE: Final = "QUANT_STRICT_PLUGINS"

BUILT_IN_COMMANDS: Final = ("export", "plugins", "show")
"""The sub-commands of ``quant`` itself, whose names no plugin can take."""

EntryT = TypeVar("EntryT", bound=Entry)


@dataclass(frozen=True, kw_only=True)
class Registered(Generic[EntryT]):
    """One registration, and where it comes from.

    Attributes:
        item: what was registered.
        distribution: the distribution that registered it.
        version: the version of that distribution.
    """

    item: EntryT
    distribution: str
    version: str


class Registry:
    """All plugins, each loaded by itself, and what the active ones register.

    Law: the same entry points, in any order, give the same registry.

    Args:
        entry_points: the entry points to load; those of the group ``quant`` in this environment by default.

    ``QUANT_DISABLE_PLUGINS`` names plugins that are not loaded: entry points or distributions, separated by commas, or
    ``*`` for all. With ``QUANT_STRICT_PLUGINS=1`` a plugin that cannot be used is an error.

    Raises:
        PluginError: when ``QUANT_STRICT_PLUGINS`` is set and a plugin is broken or incompatible.

    >>> registry().quantizers["Int8Bias"].item.quantizer
    'quant_core.quant:Int8Bias'
    """

    def __init__(self, entry_points: Iterable[EntryPoint] | None = None) -> None:
        found = _installed() if entry_points is None else entry_points
        self._loaded: tuple[Loaded, ...] = tuple(load(point) for point in sorted(found, key=_order))
        if os.environ.get(STRICT_VARIABLE, "") not in ("", "0"):
            self._refuse_unusable()

    @property
    def plugins(self) -> tuple[PluginStatus, ...]:
        """Every plugin with its status, by name."""
        return tuple(loaded.status for loaded in self._loaded)

    @cached_property
    def conflicts(self) -> tuple[Conflict, ...]:
        """Every name that is registered more than once, by kind and name."""
        return tuple(conflict for hook in HOOKS for conflict in self._conflicts(hook))

    @cached_property
    def targets(self) -> Mapping[str, Registered[Target]]:
        """All targets by name.

        Raises:
            PluginError: when two plugins register one name.
        """
        return self._collect("quant_targets")

    @cached_property
    def quantizers(self) -> Mapping[str, Registered[Quantizer]]:
        """All named quantizers by name; raises as :attr:`targets`."""
        return self._collect("quant_quantizers")

    @cached_property
    def shorthands(self) -> Mapping[str, Registered[Shorthand]]:
        """All keywords and words by name, such as ``"quant_type=binary"``; raises as :attr:`targets`."""
        return self._collect("quant_shorthands")

    @cached_property
    def shorthand_keywords(self) -> frozenset[str]:
        """The keywords of all shorthands; never raises, so that a conflict concerns only who uses one."""
        return frozenset(registered.item.keyword for registered in self._registered("quant_shorthands"))

    @cached_property
    def layers(self) -> Mapping[str, Registered[Layer]]:
        """All layers by name; raises as :attr:`targets`."""
        return self._collect("quant_layers")

    @cached_property
    def ops(self) -> Mapping[str, Registered[Op]]:
        """All extensions of the dialect by name; raises as :attr:`targets`."""
        return self._collect("quant_ops")

    @cached_property
    def commands(self) -> Mapping[str, Registered[Command]]:
        """All sub-commands by name; raises as :attr:`targets`."""
        return self._collect("quant_commands")

    def target(self, name: str) -> Registered[Target]:
        """The target of that name.

        Raises:
            UnknownNameError: when no active plugin registers it; says what to install, or the nearest name.
            PluginError: when two plugins register one name.
        """
        if name in self.targets:
            return self.targets[name]
        raise unknown_target(name, self.targets, self.plugins)

    def _collect(self, hook: str) -> Mapping[str, Registered[Any]]:
        for conflict in self._conflicts(hook):
            raise conflict.error()
        found = {registered.item.name: registered for registered in self._registered(hook)}
        return MappingProxyType(dict(sorted(found.items())))

    def _registered(self, hook: str) -> list[Registered[Any]]:
        return [
            Registered(item=entry, distribution=loaded.status.distribution, version=loaded.status.version)
            for loaded in self._loaded
            for entry in loaded.entries.get(hook, ())
        ]

    def _conflicts(self, hook: str) -> list[Conflict]:
        providers: dict[str, list[str]] = {}
        if hook == "quant_commands":
            providers = {name: [f"quant-core {version('quant-core')}"] for name in BUILT_IN_COMMANDS}
        for registered in self._registered(hook):
            provider = f"{registered.distribution} {registered.version}"
            providers.setdefault(registered.item.name, []).append(provider)
        kind = HOOKS[hook].__name__.lower()
        return [
            Conflict(kind=kind, name=name, providers=tuple(sorted(several)))
            for name, several in sorted(providers.items())
            if len(several) > 1
        ]

    def _refuse_unusable(self) -> None:
        unusable = [status for status in self.plugins if status.status in ("broken", "incompatible")]
        if not unusable:
            return
        count = "1 plugin" if len(unusable) == 1 else f"{len(unusable)} plugins"
        raise PluginError(
            f"{count} cannot be used",
            where=", ".join(f"{status.distribution} {status.version}" for status in unusable),
            why="\n".join(f"{status.name} is {status.status}: {status.reason}" for status in unusable),
            fix=f"Update or remove what is listed, name it in {DISABLE_VARIABLE}, or unset {STRICT_VARIABLE}.",
        )


@cache
def registry() -> Registry:
    """The registry of this process, loaded on first use."""
    return Registry()


def _installed() -> Iterable[EntryPoint]:
    return entry_points(group=PROJECT)


def _order(point: EntryPoint) -> tuple[str, ...]:
    return (point.name, *source_of(point), point.value)
