"""Prints when it is imported and when it is asked; used by test_what_plugins_print_is_no_result."""

from __future__ import annotations

from collections.abc import Iterable

from quant_core.plugins import Quantizer, hookimpl

QUANT_API_VERSION = 1

print("a plugin that talks")


@hookimpl
def quant_quantizers() -> Iterable[Quantizer]:
    print("a hook that talks")
    return ()
