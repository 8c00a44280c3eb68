"""The layers of a model, as a conversion sees them: each once, with all of its paths."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MethodType
from typing import Any, Final

from torch import nn
from torch.nn.utils import parametrize

from quant_core.errors import ConfigurationError
from quant_core.export.provenance import public_name
from quant_core.plugins import Layer, Registry, load_attribute


@dataclass(kw_only=True)
class Site:
    """One layer of a model.

    Attributes:
        module: the float layer.
        kind: its type, without parametrizations.
        entries: the quantized layers that are registered for this type.
        paths: its paths in the model, the first one first.
    """

    module: nn.Module
    kind: type
    entries: tuple[Layer, ...]
    paths: list[str] = field(default_factory=list)

    @property
    def path(self) -> str:
        """The first of its paths; that of the model itself is empty."""
        return self.paths[0]

    @property
    def place(self) -> str:
        """The path for messages."""
        return self.path or "the model"

    @property
    def type_name(self) -> str:
        """The type for messages, such as ``torch.nn.Conv2d``."""
        return public_name(self.kind)


def float_types(plugins: Registry) -> Mapping[type, tuple[Layer, ...]]:
    """The registered quantized layers by the float type that they stand for, as far as it is imported."""
    found: dict[type, tuple[Layer, ...]] = {}
    for registered in plugins.layers.values():
        reference = registered.item.float_type
        if reference.partition(":")[0].partition(".")[0] in sys.modules:  # else the model has no layer of this type
            kind = load_attribute(reference)
            found[kind] = (*found.get(kind, ()), registered.item)
    return found


def sites(model: nn.Module, table: Mapping[type, tuple[Layer, ...]]) -> list[Site]:
    """All layers: modules of registered types, and others that compute something of their own.

    What a registered layer contains belongs to it and is no layer of the model.
    """
    found: dict[int, Site] = {}
    for path, module in _walk("", model, table):
        kind = parametrize.type_before_parametrizations(module)
        site = found.setdefault(id(module), Site(module=module, kind=kind, entries=table.get(kind, ())))
        site.paths.append(path)
    return list(found.values())


def _walk(path: str, module: nn.Module, table: Mapping[type, Any]) -> Iterator[tuple[str, nn.Module]]:
    registered = parametrize.type_before_parametrizations(module) in table
    children = [(name, child) for name, child in module._modules.items() if child is not None]
    if registered or not children or module._parameters:
        yield path, module
    if not registered:
        for name, child in children:
            if not isinstance(child, parametrize.ParametrizationList):
                yield from _walk(f"{path}.{name}" if path else name, child, table)


def check_held_once(model: nn.Module, replaced: Mapping[int, Site]) -> None:
    """Refuse a layer that a module also holds where replacement cannot reach it.

    Raises:
        ConfigurationError: when an attribute that is no submodule holds a layer that is to be replaced: itself, in lists, tuples,
            dicts and sets, or as part of a partial function or a bound method.
    """
    for path, owner in model.named_modules():
        for name, attribute in vars(owner).items():
            if name in _OWN:
                continue
            held = next((one for one in _held(attribute, 0) if id(one) in replaced and one is not owner), None)
            if held is not None:
                kind = "attribute" if held is attribute else type(attribute).__name__
                raise ConfigurationError(
                    f"{replaced[id(held)].place} cannot be replaced everywhere",
                    where=path or public_name(type(owner)),
                    why=f"{name!r} is a plain {kind} that holds it as well",
                    fix="Use nn.ModuleList or nn.ModuleDict, or exclude this layer.",
                )


_OWN: Final = frozenset(vars(nn.Module()))
"""The attributes that every module has: its submodules, hooks and tensors."""
_DEPTH: Final = 4


def _held(value: Any, depth: int) -> Iterator[nn.Module]:
    """The modules that a plain attribute holds."""
    if isinstance(value, nn.Module):
        yield value
    parts: Iterable[Any] = ()
    if isinstance(value, dict):
        parts = value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        parts = value
    elif isinstance(value, partial):
        parts = (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, MethodType):
        parts = (value.__self__,)
    for part in parts if depth < _DEPTH else ():
        yield from _held(part, depth + 1)
