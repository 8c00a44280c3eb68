"""From a program to an artifact: check, then hand it to the exporter that the target names."""

from __future__ import annotations

from typing import Any

from quant_core.export.artifact import Artifact
from quant_core.export.check import check
from quant_core.export.options import check_options
from quant_core.export.program import Program
from quant_core.export.target_code import lowered_by
from quant_core.plugins import Registry, registry


def lower(program: Program, target: str, *, plugins: Registry | None = None, **options: Any) -> Artifact:
    """Lower a program to a target.

    Args:
        program: a captured model.
        target: the name of a registered target.
        plugins: the registry to look in; the process-wide one by default.
        **options: keyword options of the target's exporter.

    Raises:
        UnsupportedError: when the target cannot take the program; holds every refusal.
        UnknownNameError: for an unknown target or option.
        LoweringError: when the exporter fails on a program that its target declares to take, or gives no artifact.
    """
    known = plugins or registry()
    registered = known.target(target)
    check_options(registered.item, options)
    report = check(program, target, plugins=known, options=options)
    report.raise_if_refused()
    artifact = lowered_by(registered, program, options)
    artifact.program, artifact.notes = program, report.notes
    return artifact
