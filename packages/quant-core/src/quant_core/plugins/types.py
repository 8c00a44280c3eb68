"""What a plugin registers: frozen data that names its code, which is imported on first use."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from quant_core.errors import PluginError
from quant_core.plugins.capabilities import Capabilities
from quant_core.plugins.references import REFERENCE

_CODE: Final = frozenset(
    {"exporter", "rules", "quantizer", "float_type", "quant_type", "op", "decomposition", "command"}
)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What all registrations share.

    Attributes:
        name: the name that users type.
        summary: one line for listings.

    Raises:
        PluginError: when a field that names code is not ``"package.module:attribute"``, or the name is empty.
    """

    name: str
    summary: str

    def __post_init__(self) -> None:
        if not self.name or self.name != self.name.strip():
            raise PluginError(
                f"{type(self).__name__} has the name {self.name!r}",
                why="a name is not empty and has no space around it",
                fix="Give it the name that users will type.",
            )
        for part in fields(self):
            reference = getattr(self, part.name)
            if part.name not in _CODE or (reference is None and part.default is None):
                continue
            if not (isinstance(reference, str) and REFERENCE.fullmatch(reference)):
                raise PluginError(
                    f"{type(self).__name__} {self.name!r} has {part.name}={reference!r}",
                    why="code is named as 'package.module:attribute', so that it is imported on first use only",
                    fix="Write the reference as a string of that form.",
                )


@dataclass(frozen=True, kw_only=True)
class Target(Entry):
    """A place that a model can go to.

    Attributes:
        exporter: a function ``(program, **options) -> Artifact``.
        suffix: the usual end of its file names, such as ``.onnx``.
        capabilities: what it takes.
        runtime: the import name of the package that runs its artifacts; ``None`` when nothing can run them.
        rules: a function ``(program) -> Iterable[Refusal | Note]`` for what the capabilities cannot say, such as what must stand
            before what; ``None`` when they say it all.
    """

    exporter: str
    suffix: str
    capabilities: Capabilities
    runtime: str | None = None
    rules: str | None = None


@dataclass(frozen=True, kw_only=True)
class Quantizer(Entry):
    """A named quantizer.

    Attributes:
        quantizer: a subclass of ``quant_core.inject.Injector``.
    """

    quantizer: str


@dataclass(frozen=True, kw_only=True)
class Layer(Entry):
    """A quantized layer and the float layer that it stands for.

    Attributes:
        float_type: the float layer.
        quant_type: the quantized layer.
    """

    float_type: str
    quant_type: str


@dataclass(frozen=True, kw_only=True)
class Op(Entry):
    """An extension of the dialect. It must decompose into the core ops, so that every target takes it.

    Attributes:
        op: the ``torch.library`` op.
        decomposition: a function of the same arguments, written in ``aten`` and ``quant`` ops.
    """

    op: str
    decomposition: str


@dataclass(frozen=True, kw_only=True)
class Command(Entry):
    """A sub-command of ``quant``.

    Attributes:
        command: a ``click`` command.
    """

    command: str
