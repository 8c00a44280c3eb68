"""Calling the code that a target names: what fails there is told as a defect of the target, with where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quant_core.errors import LoweringError, PluginError, QuantError
from quant_core.export.artifact import Artifact
from quant_core.export.check_report import Note, Refusal
from quant_core.export.options import check_options, read_by
from quant_core.export.program import Program
from quant_core.plugins import Registered, Target, load_attribute
from quant_core.plugins.references import one_line

_REPORT = "report it with the cause of this error."


def lowered_by(target: Registered[Target], program: Program, options: Mapping[str, Any]) -> Artifact:
    """What the exporter of a target makes of a program that it declares to take.

    Raises:
        UnknownNameError: for an option that it does not take.
        LoweringError: when it fails, or gives no artifact.
    """
    exporter = check_options(target.item, options)
    try:
        artifact = exporter(program, **options)
    except QuantError:
        raise
    except (Exception, SystemExit) as failure:
        raise LoweringError(
            f"target {target.item.name!r} failed to lower this model",
            where=f"{target.distribution} {target.version}",
            why=f"{type(failure).__name__}: {failure}",
            fix=f"This is a defect of the target, which declares to take the model; {_REPORT}",
        ) from failure
    if not isinstance(artifact, Artifact):
        raise LoweringError(
            f"target {target.item.name!r} gave no artifact",
            where=f"{target.distribution} {target.version}",
            why=f"{target.item.exporter} returned a {type(artifact).__name__}, not a quant_core.export.Artifact",
            fix="Report this to the authors of that package.",
        )
    missing = [name for name in ("target", "signature") if not hasattr(artifact, name)]
    if missing:
        raise LoweringError(
            f"target {target.item.name!r} gave an artifact without {' and '.join(missing)}",
            where=f"{target.distribution} {target.version}",
            why=f"{type(artifact).__qualname__}.__init__ does not call that of quant_core.export.Artifact",
            fix="Report this to the authors of that package: it begins with super().__init__(target, program.signature).",
        )
    return artifact


def found_by(target: Registered[Target], program: Program, options: Mapping[str, Any]) -> list[Refusal | Note]:
    """What the rules of a target say of a program; nothing where it has none.

    Raises:
        PluginError: when they fail, or yield something else than refusals and notes.
    """
    if target.item.rules is None:
        return []
    rules = load_attribute(target.item.rules)
    try:
        found = list(rules(program, **read_by(rules, options)))
    except QuantError:
        raise
    except (Exception, SystemExit) as failure:
        raise PluginError(
            f"the rules of target {target.item.name!r} failed",
            where=f"{target.distribution} {target.version}",
            why=f"{target.item.rules} raised {type(failure).__name__}: {one_line(failure)}",
            fix=f"This is a defect of the target; {_REPORT}",
        ) from failure
    for one in found:
        if not isinstance(one, Refusal | Note):
            raise PluginError(
                f"the rules of target {target.item.name!r} gave {one!r}",
                where=f"{target.distribution} {target.version}",
                why=f"{target.item.rules} yields objects of quant_core.export.Refusal and Note",
                fix="Report this to the authors of that package.",
            )
    return found
