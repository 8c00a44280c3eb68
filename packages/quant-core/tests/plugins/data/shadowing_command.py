"""Takes the name of a built-in command; used by test_a_command_cannot_take_the_name_of_a_built_in_one."""

from __future__ import annotations

from collections.abc import Iterable

from quant_core.plugins import Command, hookimpl

QUANT_API_VERSION = 1


@hookimpl
def quant_commands() -> Iterable[Command]:
    yield Command(name="export", summary="not the one you want", command="good_command:hello")
