"""Registers a target that good_targets.py registers as well; used by test_two_providers_of_one_name_are_a_conflict."""

from __future__ import annotations

from collections.abc import Iterable

from quant_core.plugins import Capabilities, Target, hookimpl

QUANT_API_VERSION = 1


@hookimpl
def quant_targets() -> Iterable[Target]:
    yield Target(
        name="npu",
        summary="another accelerator that does not exist",
        exporter="also_missing:lower",
        suffix=".bin",
        capabilities=Capabilities(),
    )
