"""The hooks of the ``quant`` project, in the manner of pluggy: a plugin is a module with functions of these names.

A plugin module is light: it imports neither torch nor onnx, names its code by reference, and states the version of
this API that it was written for as ``QUANT_API_VERSION``. A distribution announces it in the entry-point group
``quant``.

In such a module every function whose name starts with ``quant_`` is a hook: one that is misspelt, or that lacks the
``@hookimpl`` over it, makes the plugin broken, for otherwise it would register nothing and nobody would know.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import pluggy

from quant_core.plugins.types import Command, Layer, Op, Quantizer, Shorthand, Target

PROJECT: Final = "quant"
API_VERSION: Final = 1

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def quant_targets() -> Iterable[Target]:
    """Places that models can be exported to; ``quant export --list-targets`` lists them.

    >>> from quant_core.plugins import Capabilities, QuantSupport, Target, hookimpl
    >>> @hookimpl
    ... def quant_targets():
    ...     yield Target(
    ...         name="mine",
    ...         summary="my accelerator",
    ...         exporter="my_package.exporter:lower",
    ...         suffix=".bin",
    ...         capabilities=Capabilities(quant={"quant::int weight": QuantSupport(bit_widths={8})}),
    ...     )
    >>> [entry.name for entry in quant_targets()]
    ['mine']
    """
    yield from ()


@hookspec
def quant_quantizers() -> Iterable[Quantizer]:
    """Named quantizers, each a subclass of ``quant_core.inject.Injector``.

    >>> from quant_core.plugins import Quantizer, hookimpl
    >>> @hookimpl
    ... def quant_quantizers():
    ...     yield Quantizer(name="Int4Act", summary="4-bit activations", quantizer="my_package.quant:Int4Act")
    >>> [entry.name for entry in quant_quantizers()]
    ['Int4Act']
    """
    yield from ()


@hookspec
def quant_shorthands() -> Iterable[Shorthand]:
    """Keywords and words that stand for components of a quantizer.

    >>> from quant_core.plugins import Shorthand, hookimpl
    >>> @hookimpl
    ... def quant_shorthands():
    ...     yield Shorthand(
    ...         name="scaling_stats_op=median",
    ...         summary="the median of the absolute values",
    ...         sets={"scaling_stats_impl": "my_package.stats:AbsMedian"},
    ...     )
    >>> [entry.name for entry in quant_shorthands()]
    ['scaling_stats_op=median']
    """
    yield from ()


@hookspec
def quant_layers() -> Iterable[Layer]:
    """Quantized layers, each with the float layer that it stands for.

    >>> from quant_core.plugins import Layer, hookimpl
    >>> @hookimpl
    ... def quant_layers():
    ...     yield Layer(
    ...         name="QuantMish",
    ...         summary="mish, then quantized",
    ...         float_type="torch.nn:Mish",
    ...         quant_type="my_package.layers:QuantMish",
    ...     )
    >>> [entry.name for entry in quant_layers()]
    ['QuantMish']
    """
    yield from ()


@hookspec
def quant_ops() -> Iterable[Op]:
    """Extensions of the dialect, each with its decomposition into core ops, so that every target takes it.

    >>> from quant_core.plugins import Op, hookimpl
    >>> @hookimpl
    ... def quant_ops():
    ...     yield Op(
    ...         name="mine::log2",
    ...         summary="power-of-two levels",
    ...         op="my_package.ops:log2",
    ...         decomposition="my_package.ops:decompose_log2",
    ...     )
    >>> [entry.name for entry in quant_ops()]
    ['mine::log2']
    """
    yield from ()


@hookspec
def quant_commands() -> Iterable[Command]:
    """Sub-commands of ``quant``, each a ``click`` command; none may have the name of a built-in one.

    >>> from quant_core.plugins import Command, hookimpl
    >>> @hookimpl
    ... def quant_commands():
    ...     yield Command(name="deploy", summary="send to the board", command="my_package.cli:deploy")
    >>> [entry.name for entry in quant_commands()]
    ['deploy']
    """
    yield from ()
