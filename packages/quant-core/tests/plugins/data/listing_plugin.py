"""Targets that work, so that the whole of `quant export` can be tested; used by test_quant_export.py."""

from __future__ import annotations

from collections.abc import Iterable

from quant_core.plugins import Capabilities, Target, hookimpl

QUANT_API_VERSION = 1


def _target(
    name: str, *, runtime: str | None = "torch", aten: frozenset[str] | None = None, rules: str | None = None
) -> Target:
    return Target(
        name=name,
        summary=f"the operations of a program ({name})",
        exporter="listing_exporter:lower",
        suffix=".json",
        capabilities=Capabilities(aten=aten),
        runtime=runtime,
        rules=rules,
    )


@hookimpl
def quant_targets() -> Iterable[Target]:
    yield _target("listing")
    yield _target("linear-only", aten=frozenset({"linear.default"}))
    yield _target("never-run", runtime=None)
    yield _target("cannot-run", runtime="no_such_runtime")
    yield _target("noting", rules="listing_exporter:rules")
