"""Registers as a command what is none; used by test_a_command_that_is_none_is_refused."""

from __future__ import annotations

from collections.abc import Iterable

from quant_core.plugins import Command, hookimpl

QUANT_API_VERSION = 1


@hookimpl
def quant_commands() -> Iterable[Command]:
    yield Command(name="number", summary="not a command", command="good_command:not_a_command")
