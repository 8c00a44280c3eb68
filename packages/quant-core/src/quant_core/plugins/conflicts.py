"""Two providers of one name: found for every kind, raised when that kind is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from quant_core.errors import PluginError


@dataclass(frozen=True, kw_only=True)
class Conflict:
    """A name that is registered more than once.

    Attributes:
        kind: what is registered, such as ``"target"``.
        name: the name.
        providers: the distributions that register it, each with its version, sorted.

    >>> print(Conflict(kind="target", name="npu", providers=("acme 1.0", "other 2.1")))
    target 'npu' is registered by acme 1.0 and other 2.1
    """

    kind: str
    name: str
    providers: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r} is registered by {' and '.join(self.providers)}"

    def error(self) -> PluginError:
        """The error to raise."""
        return PluginError(
            f"the {self.kind} {self.name!r} is registered {len(self.providers)} times",
            where=" and ".join(self.providers),
            why="a name means one thing, and nothing tells which of them is meant",
            fix="Uninstall all but one of them, or name the others in QUANT_DISABLE_PLUGINS.",
        )
