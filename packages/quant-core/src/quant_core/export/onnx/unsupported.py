"""Which operations of a program have no ONNX operator: all of them, each with its place.

Torch's exporter stops at the first one, and names it as it stands after decompositions. It is therefore asked again with a
stand-in for what it stopped at, until it comes through.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import torch
from torch import fx
from torch.export import ExportedProgram

from quant_core.errors import UnsupportedError
from quant_core.export.program import Program
from quant_core.export.quiet import quiet

_LISTED: Final = 20  # attempts, each of which finds one operation


def explain(
    failure: Exception,
    program: Program,
    exported: ExportedProgram,
    target: str,
    attempt: Callable[[Mapping[Any, Any]], Any],
    translations: Mapping[Any, Any],
) -> UnsupportedError:
    """The error that names every operation without an operator.

    Args:
        failure: how torch's exporter failed first.
        program: the captured model, for places.
        exported: what was exported.
        target: the name of the target.
        attempt: exports again, with other translations.
        translations: those of the first attempt.
    """
    found = [(op, _place(op, program, exported), reason) for op, reason in _all(failure, attempt, dict(translations))]
    op, place, reason = found[0]
    rest = "\n".join(
        f"{other}\n  at {where}\n  torch's ONNX exporter refuses it: {why}" for other, where, why in found[1:]
    )
    return UnsupportedError(
        f"target {target!r} cannot lower {op}",
        where=place or None,
        why=f"torch's ONNX exporter refuses it: {reason}",
        fix="Replace the operation, or keep it out of the exported part of the model."
        + (f"\nand {len(found) - 1} more:\n{rest}" if rest else ""),
    )


def _all(
    failure: Exception, attempt: Callable[[Mapping[Any, Any]], Any], table: dict[Any, Any]
) -> Iterator[tuple[str, str]]:
    for _ in range(_LISTED):
        op, reason = _stopped_at(failure)
        yield op, reason
        overload = _overload(op)
        if overload is None or overload in table:
            return
        table[overload] = _stand_in(len(overload._schema.returns))
        try:
            attempt(table)
        except torch.onnx.OnnxExporterError as another:
            if _stopped_at(another)[0] == op:
                return
            failure = another
        else:
            return


def _stand_in(results: int) -> Callable[..., Any]:
    """A translation that gives the operand in place of each result."""

    def same(x: Any, *_: Any, **__: Any) -> Any:
        import onnxscript

        given = [onnxscript.values.Opset("", 18).Identity(x) for _ in range(results)]
        return given[0] if results == 1 else tuple(given)

    return same


def _stopped_at(failure: Exception) -> tuple[str, str]:
    """The operation that torch's exporter stopped at, and its words."""
    reports = []
    cause: BaseException | None = failure
    while cause is not None:
        reports.append(str(cause))
        cause = cause.__cause__
    found = re.search(r"call_function\[target=torch\.ops\.([\w.]+)\]", "\n".join(reports))
    reason = next((line for line in reports[-1].splitlines() if line.strip()), type(failure).__name__)
    return found.group(1) if found else "an operation", reason.strip()


def _overload(op: str) -> Any:
    found: Any = torch.ops
    for name in op.split("."):
        found = getattr(found, name, None)
    return found if isinstance(found, torch._ops.OpOverload) else None


def _place(op: str, program: Program, exported: ExportedProgram) -> str:
    node = _find(program.graph, op) or _find_decomposed(exported, op)
    return str(program.where(node)) if node is not None else ""


def _find(graph: fx.Graph, op: str) -> fx.Node | None:
    return next((node for node in graph.nodes if str(node.target) == op), None)


def _find_decomposed(exported: ExportedProgram, op: str) -> fx.Node | None:
    """The first node of an op that stands in the graph only after decompositions.

    Torch's exporter takes some of all that torch has; what it stopped at is what the standard ones leave, or else all of them.
    """
    for table in (None, dict(torch._decomp.decomposition_table)):
        with quiet():
            try:
                decomposed = exported.run_decompositions(table)
            except Exception:  # the error that is being explained matters more than its place
                continue
        node = _find(decomposed.graph, op)
        if node is not None:
            return node
    return None
