"""What to do about a target that nobody registers: enable, update or install its package, or correct its name."""

from __future__ import annotations

from collections.abc import Collection
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from quant_core.errors import UnknownNameError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quant_core.plugins.loading import PluginStatus

PROVIDERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "qcdq": "export-qcdq",
        "qop": "export-qcdq",
        "qonnx": "export-finn",
        "finn": "export-finn",
        "torchq": "export-torchq",
        "pt2e": "export-torchq",
        "dpuv1": "export-dpu",
        "dpuv2": "export-dpu",
    }
)
"""The targets of this project's own packages, and what to install for each."""


def unknown_target(name: str, targets: Collection[str], plugins: Collection[PluginStatus]) -> UnknownNameError:
    """The error for a target that no active plugin registers.

    Args:
        name: what was asked for.
        targets: the names of the installed targets.
        plugins: every plugin with its status.

    >>> print(unknown_target("qcdq", ["integers"], []))
    unknown target 'qcdq'
      the package that provides it is not installed; installed targets: integers
      Install it: pip install export-qcdq
    """
    installed = ", ".join(targets) or "none"
    provider = PROVIDERS.get(name)
    present = next((status for status in plugins if status.distribution == provider), None)
    if present is not None and present.status != "active":
        why = f"{present.distribution} {present.version} is {present.status}: {present.reason}"
        fix = "Repair or enable that plugin; `quant plugins` shows all of them."
    elif present is not None:
        why = f"{present.distribution} {present.version} does not register it; installed targets: {installed}"
        fix = f"Update it: pip install --upgrade {provider}"
    elif provider is not None:
        why = f"the package that provides it is not installed; installed targets: {installed}"
        fix = f"Install it: pip install {provider}"
    else:
        why = f"no installed package registers it; installed targets: {installed}"
        fix = _suggestion(name, targets)
    return UnknownNameError(f"unknown target {name!r}", why=why, fix=fix)


def _suggestion(name: str, targets: Collection[str]) -> str:
    close = nearest(name, [*targets, *PROVIDERS])
    hints = [repr(one) if one in targets else f"{one!r} (pip install {PROVIDERS[one]})" for one in close]
    return f"Did you mean {' or '.join(hints)}?" if hints else "See `quant export --list-targets`."
