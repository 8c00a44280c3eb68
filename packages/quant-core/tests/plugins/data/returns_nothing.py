"""Forgets to return its targets; used by test_a_broken_plugin_is_a_row_with_its_reason."""

from __future__ import annotations

from typing import Any

from quant_core.plugins import Capabilities, Target, hookimpl

QUANT_API_VERSION = 1


@hookimpl
def quant_targets() -> Any:
    Target(name="npu", summary="forgotten", exporter="mine:lower", suffix=".npu", capabilities=Capabilities())
