"""From ``"package.module:attribute"`` to the thing itself."""

from __future__ import annotations

import importlib
import re
from typing import Any, Final

from quant_core.errors import PluginError, did_you_mean

REFERENCE: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")

_OWN_PACKAGES: Final = {
    "quant_core": "quant-core",
    "quant_nn": "quant-nn",
    "quant_rnn": "quant-rnn",
    "export_qcdq": "export-qcdq",
    "export_finn": "export-finn",
    "export_torchq": "export-torchq",
    "export_dpu": "export-dpu",
}


def load_attribute(reference: str) -> Any:
    """Import what a registration names.

    Args:
        reference: ``"package.module:attribute"``; the attribute may be dotted.

    Raises:
        PluginError: when the reference is malformed, when the module is missing or fails on import, or when it has no
            such attribute.

    >>> load_attribute("math:pi") > 3
    True
    """
    if not REFERENCE.fullmatch(reference):
        raise PluginError(
            f"{reference!r} names no code",
            why="code is named as 'package.module:attribute'",
            fix="Write the reference in that form.",
        )
    module_name, _, attribute = reference.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as missing:
        raise _missing(reference, module_name, missing.name or module_name) from missing
    except (Exception, SystemExit) as failure:
        raise PluginError(
            f"{reference!r} cannot be imported",
            where=module_name,
            why=f"importing it raised {type(failure).__name__}: {one_line(failure)}",
            fix=f"{_origin(module_name)} is broken: reinstall it with its dependencies, or report this to its authors.",
        ) from failure
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise PluginError(
                f"{reference!r} does not exist",
                where=module_name,
                why=f"{getattr(found, '__name__', repr(found))} has no attribute {part!r}",
                fix=did_you_mean(part, [name for name in dir(found) if not name.startswith("_")]),
            )
        found = getattr(found, part)
    return found


def one_line(failure: BaseException) -> str:
    """The message of an exception on one line, for tables.

    >>> one_line(ValueError("first,\\n  second"))
    'first, second'
    """
    return " ".join(str(failure).split()) or "no message"


def _missing(reference: str, module_name: str, missing: str) -> PluginError:
    """A module is missing: the one that is named, a part of its package, or something that it needs itself."""
    top = missing.partition(".")[0]
    if missing != top:
        fix = f"{_origin(missing)} is broken or of another version: reinstall it, or report this to its authors."
    elif missing in _OWN_PACKAGES:
        fix = f"Install it: pip install {_OWN_PACKAGES[missing]}"
    else:
        fix = f"Install the distribution that provides the module {missing!r}."
    asker = "" if f"{module_name}.".startswith(f"{missing}.") else f", which {module_name} needs"
    return PluginError(
        f"{reference!r} cannot be imported",
        where=module_name,
        why=f"there is no module {missing!r}{asker}",
        fix=fix,
    )


def _origin(module_name: str) -> str:
    """The distribution that provides a module, with its version."""
    from importlib.metadata import packages_distributions, version  # reads every file list: only worth it in an error

    top = module_name.partition(".")[0]
    owners = sorted(set(packages_distributions().get(top, ())))
    name = owners[0] if len(owners) == 1 else _OWN_PACKAGES.get(top)
    return f"The package {top!r}" if name is None else f"{name} {version(name)}"
