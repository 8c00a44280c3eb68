"""Loading one plugin by itself, so that a broken one is a row in a table and never a crash."""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from types import FunctionType, MappingProxyType, ModuleType
from typing import Any, Final, Literal

from quant_core.errors import did_you_mean, nearest
from quant_core.plugins.hookspecs import API_VERSION, PROJECT
from quant_core.plugins.references import one_line
from quant_core.plugins.types import Command, Entry, Layer, Op, Quantizer, Shorthand, Target

Status = Literal["active", "disabled", "broken", "incompatible"]

HOOKS: Final[Mapping[str, type[Entry]]] = MappingProxyType(
    {
        "quant_targets": Target,
        "quant_quantizers": Quantizer,
        "quant_shorthands": Shorthand,
        "quant_layers": Layer,
        "quant_ops": Op,
        "quant_commands": Command,
    }
)
"""Each hook, and the kind of registration that it yields."""

DISABLE_VARIABLE: Final = "QUANT_DISABLE_PLUGINS"
_MARK: Final = f"{PROJECT}_impl"
_RESERVED: Final = f"{PROJECT}_"


@dataclass(frozen=True, kw_only=True)
class PluginStatus:
    """One plugin and what became of it.

    Attributes:
        name: the name of its entry point.
        distribution: the distribution that it comes from.
        version: the version of that distribution.
        status: whether it is used.
        reason: why it is not; empty when it is.
    """

    name: str
    distribution: str
    version: str
    status: Status
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A plugin with what it registered, by hook; nothing unless it is active."""

    status: PluginStatus
    entries: Mapping[str, tuple[Entry, ...]] = field(default_factory=dict)


class _UnusableError(Exception):
    """Why a plugin cannot be used."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def load(point: EntryPoint) -> Loaded:
    """Load one entry point. Whatever is wrong with the plugin becomes its status; a disabled one is not imported.

    A plugin that leaves the interpreter while it is imported (``SystemExit``) is broken as any other; an interrupt by
    the user is not the plugin's doing and passes through.
    """
    distribution, version = source_of(point)

    def status(status: Status, reason: str = "") -> PluginStatus:
        return PluginStatus(name=point.name, distribution=distribution, version=version, status=status, reason=reason)

    if _is_disabled(point.name, distribution):
        return Loaded(status=status("disabled", f"named in {DISABLE_VARIABLE}"))
    try:
        with contextlib.redirect_stdout(sys.stderr):  # standard output is for results
            entries = _entries(_import(point))
    except _UnusableError as unusable:
        return Loaded(status=status(unusable.status, unusable.reason))
    return Loaded(status=status("active"), entries=entries)


def source_of(point: EntryPoint) -> tuple[str, str]:
    """The name and the version of the distribution that an entry point comes from, ``"unknown"`` where its metadata is broken."""
    if point.dist is None:
        return "unknown", "unknown"
    metadata = point.dist.metadata  # parsed anew at each access
    return metadata["Name"] or "unknown", metadata["Version"] or "unknown"


def _is_disabled(name: str, distribution: str) -> bool:
    """Whether the variable names the entry point or its distribution, in any spelling, or holds ``*``."""
    words = {_normalized(word) for word in os.environ.get(DISABLE_VARIABLE, "").split(",")}
    return "*" in words or _normalized(name) in words or _normalized(distribution) in words


def _normalized(name: str) -> str:
    """Distribution names are compared without regard to case and to the kind of separator (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _import(point: EntryPoint) -> ModuleType:
    if EntryPoint.pattern.match(point.value) is None:
        raise _UnusableError("broken", f"{point.value!r} names no module")
    try:
        module: Any = point.load()
    except (Exception, SystemExit) as failure:
        reason = f"importing {point.value} raised {type(failure).__name__}: {one_line(failure)}"
        raise _UnusableError("broken", reason) from failure
    if not isinstance(module, ModuleType):
        raise _UnusableError("broken", f"{point.value} is a {type(module).__name__}; an entry point names a module")
    written_for = getattr(module, "QUANT_API_VERSION", None)
    if written_for is None:
        reason = f"{point.value} does not state QUANT_API_VERSION; this is version {API_VERSION}"
        raise _UnusableError("incompatible", reason)
    if written_for != API_VERSION:
        reason = f"written for version {written_for!r} of the plugin API; this is version {API_VERSION}"
        raise _UnusableError("incompatible", reason)
    return module


def _entries(module: ModuleType) -> dict[str, tuple[Entry, ...]]:
    found: dict[str, tuple[Entry, ...]] = {}
    for hook, function in _implementations(module):
        found[hook] = found.get(hook, ()) + _called(hook, function)
    for hook, entries in found.items():
        names = [entry.name for entry in entries]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise _UnusableError("broken", f"{hook} gives the name {twice!r} twice")
    return found


def _implementations(module: ModuleType) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Each hook that a module implements, with the function, in the order of the hooks' names."""
    for name, function in sorted(vars(module).items()):
        options = getattr(function, _MARK, None)
        if options is None:
            if isinstance(function, FunctionType) and function.__module__ == module.__name__:
                _refuse_unmarked(name)
            continue
        hook = options["specname"] or name
        if hook not in HOOKS:
            raise _UnusableError("broken", f"{hook} is not a hook. {_nearest_hook(hook)}")
        if options["wrapper"] or options["hookwrapper"]:
            raise _UnusableError("broken", f"{hook} is a wrapper; plugins cannot wrap each other's hooks")
        asked = list(inspect.signature(function).parameters)
        if asked:
            raise _UnusableError("broken", f"{hook} asks for {', '.join(asked)}; the hook gives no arguments")
        yield hook, function


def _refuse_unmarked(name: str) -> None:
    if name in HOOKS:
        raise _UnusableError("broken", f"{name} is not marked as a hook: put @hookimpl over it")
    if name.startswith(_RESERVED):
        raise _UnusableError("broken", f"{name} has a name that is reserved for hooks. {_nearest_hook(name)}")


def _nearest_hook(name: str) -> str:
    """All hooks look alike, so that only the nearest one is worth naming."""
    return did_you_mean(name, nearest(name, HOOKS, most=1) or HOOKS)


def _called(hook: str, function: Callable[[], Any]) -> tuple[Entry, ...]:
    kind = HOOKS[hook]
    try:
        given = function()
        result = tuple(given) if isinstance(given, Iterable) else None
    except (Exception, SystemExit) as failure:
        raise _UnusableError("broken", f"{hook} raised {type(failure).__name__}: {one_line(failure)}") from failure
    if result is None:
        raise _UnusableError("broken", f"{hook} gave {given!r}; it gives an iterable of {kind.__name__} objects")
    for entry in result:
        if not isinstance(entry, kind):
            raise _UnusableError("broken", f"{hook} gave {entry!r}; it yields {kind.__name__} objects")
    return result
