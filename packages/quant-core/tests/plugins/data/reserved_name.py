"""Misspells a hook and forgets @hookimpl; used by test_a_broken_plugin_is_a_row_with_its_reason."""

from __future__ import annotations

from typing import Any

QUANT_API_VERSION = 1


def quant_quantiser() -> Any:
    yield from ()
