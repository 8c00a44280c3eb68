"""What a plugin registers: frozen data that names its code, which is imported on first use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, Final

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
        rules: a function ``(program, **options) -> Iterable[Refusal | Note]`` for what the capabilities cannot say, such as what
            must stand before what; it takes those options of the exporter that it names. ``None`` when they say it all.
    """

    exporter: str
    suffix: str
    capabilities: Capabilities
    runtime: str | None = None
    rules: str | None = None

    @property
    def has_runtime(self) -> bool:
        """Whether the package that runs its artifacts is installed; it is not imported."""
        return self.runtime is not None and find_spec(self.runtime.partition(".")[0]) is not None


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


@dataclass(frozen=True, kw_only=True)
class Shorthand(Entry):
    """A keyword of quantizers, or one word of a keyword, that stands for other attributes.

    ``name`` is ``"keyword=word"``, or ``"keyword"`` for one that takes any value. Words are lower case here, and may be
    written in any case by users. What an attribute is set to is a number, a word, or code as ``"package.module:attribute"``: a
    component class, a ``value`` or an expression of ``this``.

    Attributes:
        sets: the attributes that it stands for, in quantizers of every kind.
        weight: those in quantizers of weights only.
        activation: those in quantizers of activations only.
        bias: those in quantizers of biases only.
        along: further attributes that go with them. They give way to what is set by hand beside the keyword, to a computed
            attribute, and to a component that takes what the keyword sets; a number or a mode also to one that is inherited.

    >>> entry = Shorthand(name="quant_type=int", summary="integers", sets={"tensor_quant": "quant_core.components:IntQuant"})
    >>> entry.keyword, entry.word
    ('quant_type', 'int')
    """

    sets: Mapping[str, Any] = field(default_factory=dict)
    weight: Mapping[str, Any] = field(default_factory=dict)
    activation: Mapping[str, Any] = field(default_factory=dict)
    bias: Mapping[str, Any] = field(default_factory=dict)
    along: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        settings = ("sets", "weight", "activation", "bias", "along")
        given = {name: getattr(self, name) for name in settings}
        if not all(part.isidentifier() for part in self.name.split("=", 1)) or self.name != self.name.lower():
            raise PluginError(
                f"Shorthand has the name {self.name!r}",
                why="a name is a keyword, or a keyword and a word, in lower case",
                fix="Write, for example, 'quant_type=binary'.",
            )
        if not any(given[name] for name in settings[:-1]):
            raise PluginError(
                f"Shorthand {self.name!r} stands for nothing",
                why="it sets no attribute in quantizers of any kind",
                fix="Fill sets, or weight, activation or bias.",
            )
        for attribute, item in (pair for mapping in given.values() for pair in mapping.items()):
            if isinstance(item, str) and ":" in item and not REFERENCE.fullmatch(item):
                raise PluginError(
                    f"Shorthand {self.name!r} sets {attribute}={item!r}",
                    why="code is named as 'package.module:attribute', so that it is imported on first use only",
                    fix="Write the reference as a string of that form.",
                )
        for name, mapping in given.items():
            object.__setattr__(self, name, MappingProxyType(dict(mapping)))

    @property
    def keyword(self) -> str:
        """The name of the attribute or option."""
        return self.name.partition("=")[0]

    @property
    def word(self) -> str | None:
        """The word, ``None`` for a keyword that takes any value."""
        return self.name.partition("=")[2] or None

    def settings(self, kind: str) -> dict[str, Any]:
        """The attributes that it stands for in a quantizer of a kind: ``"weight"``, ``"activation"``, ``"bias"`` or other."""
        own = {"weight": self.weight, "activation": self.activation, "bias": self.bias}.get(kind, {})
        return {**self.sets, **own}
