"""The options of a target: keywords of its exporter, of which its rules may read some."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from quant_core.errors import PluginError, UnknownNameError, did_you_mean
from quant_core.plugins import Target, load_attribute


def check_options(target: Target, options: Iterable[str]) -> Callable[..., Any]:
    """The exporter of a target, which takes all of these options.

    Raises:
        UnknownNameError: for an option that it does not take.
        PluginError: when what the target names is no function.
    """
    exporter: Callable[..., Any] = load_attribute(target.exporter)
    if not callable(exporter):
        raise PluginError(
            f"target {target.name!r} has no exporter",
            where=target.exporter,
            why=f"it is a {type(exporter).__name__}, not a function (program, **options) -> Artifact",
            fix="Report this to the authors of the package that registers the target.",
        )
    accepted = _named(exporter)
    for name in options:
        if name not in accepted:
            raise UnknownNameError(
                f"target {target.name!r} has no option {name!r}",
                why=f"its options are {', '.join(accepted) or 'none'}",
                fix=did_you_mean(name, accepted),
            )
    return exporter


def read_by(rules: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Those options that the rules of a target read.

    >>> read_by(lambda program, opset_version=18: (), {"opset_version": 21, "packed": True})
    {'opset_version': 21}
    """
    known = _named(rules)
    return {name: value for name, value in options.items() if name in known}


def _named(function: Callable[..., Any]) -> list[str]:
    """The parameters after the program, which is the first; what ``**options`` would swallow is no option."""
    swallow = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = list(inspect.signature(function).parameters.values())[1:]
    return [parameter.name for parameter in parameters if parameter.kind not in swallow]
