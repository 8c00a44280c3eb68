"""Gives one name twice by itself; used by test_a_broken_plugin_is_a_row_with_its_reason."""

from __future__ import annotations

from typing import Any

from quant_core.plugins import Quantizer, hookimpl

QUANT_API_VERSION = 1


@hookimpl
def quant_quantizers() -> Any:
    yield Quantizer(name="Int4", summary="4 bits", quantizer="mine:Int4")
    yield Quantizer(name="Int4", summary="4 bits again", quantizer="mine:Other")
