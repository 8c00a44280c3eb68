"""Where in the model a node of a captured program comes from."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from quant_core.proxies import QuantProxy

_CALL_NUMBER = re.compile(r"@\d+$")


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """A place in the model.

    Attributes:
        path: the module path, such as ``features.0.weight_quant``; empty for the model itself.
        module_type: the type of the layer there (of its owner, where the path ends in a quantizer), such as
            ``quant_nn.QuantConv2d``.
        prefix: of a quantizer, what stands before its options when they are given to the layer, such as ``weight_``.
    """

    path: str
    module_type: str
    prefix: str = ""

    def __str__(self) -> str:
        return f"{self.path or 'the model'} ({self.module_type})"

    def part(self, name: str) -> str:
        """The qualified name of something that belongs to this place.

        >>> Provenance(path="relu1.act_quant", module_type="quant_nn.QuantReLU").part("scale")
        'relu1.act_quant.scale'
        """
        return f"{self.path}.{name}" if self.path else name


@dataclass(frozen=True, kw_only=True)
class ModuleMap:
    """The modules of a model by path: their type, and of quantizers what stands before their options."""

    types: Mapping[str, str]
    quantizers: Mapping[str, str]

    def locate(self, node: torch.fx.Node) -> Provenance:
        """The deepest module that the node was traced in; a quantizer counts as one module."""
        stack = node.meta.get("nn_module_stack") or {}
        paths = [_CALL_NUMBER.sub("", path) for path, _ in stack.values()]
        known = [path for path in paths if path in self.types] or [""]
        quantizer = next((path for path in known if path in self.quantizers), None)
        if quantizer is not None:
            return self.at_quantizer(quantizer)
        return Provenance(path=known[-1], module_type=self.types[known[-1]])

    def at_quantizer(self, path: str) -> Provenance:
        """The place of a quantizer, with the type of the layer that owns it."""
        return Provenance(path=path, module_type=self.types[path.rpartition(".")[0]], prefix=self.quantizers[path])


def map_modules(model: nn.Module) -> ModuleMap:
    """Note the type of each module of ``model``, under each of its paths."""
    modules = dict(model.named_modules(remove_duplicate=False))
    return ModuleMap(
        types={path: public_name(type(module)) for path, module in modules.items()},
        quantizers={path: module.prefix for path, module in modules.items() if isinstance(module, QuantProxy)},
    )


def public_name(kind: type) -> str:
    """The name under which users import a class: from the shortest package where it is found.

    >>> public_name(torch.nn.Linear)
    'torch.nn.Linear'
    """
    if issubclass(kind, torch.fx.GraphModule):
        return "torch.fx.GraphModule"  # each graph has a class of its own
    parts = kind.__module__.split(".")
    for length in range(1, len(parts) + 1):
        package = ".".join(parts[:length])
        if getattr(sys.modules.get(package), kind.__qualname__, None) is kind:
            return f"{package}.{kind.__qualname__}"
    return f"{kind.__module__}.{kind.__qualname__}"
