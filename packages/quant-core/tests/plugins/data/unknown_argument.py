"""Asks for an argument that the hook does not give; used by test_a_broken_plugin_is_a_row_with_its_reason."""

from __future__ import annotations

from typing import Any

from quant_core.plugins import hookimpl

QUANT_API_VERSION = 1


@hookimpl
def quant_targets(config: Any) -> Any:
    yield from ()
