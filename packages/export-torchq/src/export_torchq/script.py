"""TorchScript from a graph: its source is compiled as it stands, and equal graphs give equal bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import fx, nn

from quant_core.export.builder import identifier

_COPY: Final = re.compile(r"[./]___torch_mangle_\d+")
"""What torch puts before the name of a class whose name another class of the process has."""
_RELEASE: Final = re.compile(r";  (?:\w+ = )+None$", re.MULTILINE)
"""What fx writes behind a call to let go of values; a script does so by itself."""
_WRITTEN_ANEW: Final = ("version", "byteorder", ".data/serialization_id")


class Quantized(nn.Module):
    """What the class is called in a file, ``__torch__.Quantized``; nothing of it is needed to load one."""


Quantized.__module__ = "__main__"


class Script:
    """A script in the making.

    Attributes:
        graph: calls of operators of torch, with names of their own.
        attributes: the tensors and packed weights that they read.
    """

    def __init__(self) -> None:
        self.graph = fx.Graph()
        self.attributes: dict[str, Any] = {}

    def input(self, name: str) -> fx.Node:
        """An argument of ``forward``, of that very name."""
        node = self.graph.placeholder(name)
        node.name = name  # fx would number names that are Python builtins, such as input
        return node

    def attribute(self, name: str, value: Any) -> fx.Node:
        """A constant, under the name or one with a number behind it."""
        base = _in_ascii(identifier(name))
        base = f"_{base}" if base[0].isdigit() else base
        candidate, number = base, 0
        while candidate in self.attributes or hasattr(Quantized, candidate):
            number += 1
            candidate = f"{base}_{number}"
        self.attributes[candidate] = value
        return self.graph.get_attr(candidate)

    def call(self, operator: Any, *args: Any, name: str, **kwargs: Any) -> fx.Node:
        """A call of an operator; its value has the name or one with a number behind it."""
        return self.graph.create_node("call_function", operator, args, kwargs, name)

    def module(self) -> fx.GraphModule:
        """The finished graph as a module whose steps can be looked at."""
        root = nn.Module()
        for name, value in self.attributes.items():
            setattr(root, name, value)
        return fx.GraphModule(root, self.graph)


def compiled(graph: fx.Graph, attributes: Mapping[str, Any]) -> bytes:
    """The TorchScript file of a graph."""
    code = graph.python_code("self")
    builder: Any = torch._C.ConcreteModuleTypeBuilder(Quantized)
    for name, value in attributes.items():
        builder.add_attribute(name, torch._C._jit_try_infer_type(value).type(), False, False)
    kind = builder.build()
    made: Any = torch._C._create_module_with_type(kind.jit_type)
    for name, value in attributes.items():
        made.setattr(name, value)
    made._define(kind, _RELEASE.sub("", code.src), {"torch": torch, **code.globals}.get)
    return _of_one_name(made.save_to_buffer())


def _in_ascii(name: str) -> str:
    """A name with the numbers of letters that a script cannot hold, other than Python.

    >>> _in_ascii("größe.weight")
    'gruf6udfe.weight'
    """
    return "".join(letter if letter.isascii() else f"u{ord(letter):x}" for letter in name)


def _of_one_name(content: bytes) -> bytes:
    """The file without what depends on what else the process compiled: numbers in names of classes, and places of sources."""
    reader = torch._C.PyTorchFileReader(io.BytesIO(content))
    stream = io.BytesIO()
    writer = torch._C.PyTorchFileWriter(stream)
    for record in sorted(reader.get_all_records()):
        if record.endswith(".debug_pkl") or record in _WRITTEN_ANEW:
            continue
        data = reader.get_record(record)
        if record.startswith("code/") or record == "data.pkl":
            data = _COPY.sub("", data.decode("latin-1")).encode("latin-1")
        writer.write_record(_COPY.sub("", record), data, len(data))
    writer.write_end_of_file()
    return stream.getvalue()
