"""A plugin as it should be, with targets, a layer, an op and a command; used by most tests of the registry."""

from __future__ import annotations

from collections.abc import Iterable

from quant_core.plugins import Capabilities, Command, Layer, Op, QuantSupport, Target, hookimpl

QUANT_API_VERSION = 1


@hookimpl
def quant_targets() -> Iterable[Target]:
    yield Target(
        name="npu",
        summary="an accelerator that does not exist",
        exporter="no_such_package.exporter:lower",
        suffix=".npu",
        capabilities=Capabilities(quant={"quant::int weight": QuantSupport(bit_widths={8})}),
        runtime="no_such_runtime",
    )
    yield Target(
        name="board",
        summary="a board",
        exporter="no_such_package.board:lower",
        suffix=".bin",
        capabilities=Capabilities(),
    )


@hookimpl
def quant_layers() -> list[Layer]:
    return [Layer(name="QuantMish", summary="mish", float_type="torch.nn:Mish", quant_type="no_such_package:QuantMish")]


@hookimpl
def quant_ops() -> Iterable[Op]:
    yield Op(
        name="mine::log2", summary="powers of two", op="no_such_package:log2", decomposition="no_such_package:core"
    )


@hookimpl(specname="quant_commands")
def commands() -> Iterable[Command]:
    yield Command(name="hello", summary="says hello", command="good_command:hello")
