"""Building a new exported program from an old one: what every pass that changes the graph does.

The old program is left as it is. Nodes are copied or replaced one by one, in order; constants may be added at any time and come
first in the new graph, then the inputs, then the rest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import ExportGraphSignature, InputKind, InputSpec, OutputSpec, TensorArgument

_OF_GRAPH_MODULES: Final = (frozenset(dir(fx.GraphModule)) | {"meta", "shape_env"}) - frozenset(dir(nn.Module))


class ProgramBuilder:
    """A new program in the making.

    Attributes:
        graph: the new graph as far as it is built.
        new: old node → new node, or a number that stands for it.
    """

    def __init__(self, old: ExportedProgram) -> None:
        self._old = old
        self._specs: dict[str, InputSpec] = {}  # by the name of the placeholder
        self._tensors: dict[str, Tensor] = {}  # new constants by qualified name
        self._placeholders: dict[str, fx.Node] = {}
        self._first_input: fx.Node | None = None
        self._fake_mode = _fake_mode(old)
        self.graph = fx.Graph()
        self.new: dict[fx.Node, Any] = {}
        self._copy_inputs()

    def _copy_inputs(self) -> None:
        old_specs = {spec.arg.name: spec for spec in self._old.graph_signature.input_specs}
        for node in self._old.graph.find_nodes(op="placeholder"):
            spec = old_specs[node.name]
            if spec.kind is InputKind.USER_INPUT:
                copied = self.graph.placeholder(node.name)
                copied.name = node.name  # fx would number names that are Python builtins, such as input
                copied.meta = dict(node.meta)
                self.new[node] = copied
                self._first_input = self._first_input or copied
                self._specs[copied.name] = spec

    def constant(self, name: str, value: Tensor) -> fx.Node:
        """A constant of that qualified name; equal constants under one name are one, others get a number."""
        name = _free_of_torch(name)
        candidate, number = name, 0
        while candidate in self._tensors and not _same(self._tensors[candidate], value):
            number += 1
            candidate = f"{name}_{number}"
        if candidate not in self._tensors:
            with self.graph.inserting_before(self._first_input or next(iter(self.graph.nodes), None)):
                node = self.graph.placeholder(self._free(f"c_{identifier(candidate)}"))
            node.meta["val"] = self._fake_mode.from_tensor(value, static_shapes=True)
            self._tensors[candidate] = value.detach().clone()  # the model may go on changing its own
            self._placeholders[candidate] = node
            kind = InputKind.PARAMETER if isinstance(value, nn.Parameter) else InputKind.BUFFER
            persistent = None if kind is InputKind.PARAMETER else True
            self._specs[node.name] = InputSpec(kind, TensorArgument(name=node.name), candidate, persistent)
        return self._placeholders[candidate]

    def _free(self, name: str) -> str:
        """Paths that differ in dots and underscores only have one identifier."""
        while name in self._specs:
            name = f"{name}_"
        return name

    def copy(self, old: fx.Node, name: str | None = None) -> fx.Node:
        """Copy a node, under another name if one is given."""
        args = fx.map_arg(old.args, self.new.__getitem__)
        kwargs = fx.map_arg(old.kwargs, self.new.__getitem__)
        return self._place(old, self.graph.create_node(old.op, old.target, args, kwargs, name or old.name))

    def replace(
        self, old: fx.Node, target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], name: str | None = None
    ) -> fx.Node:
        """Put a call in the place of a node; ``args`` and ``kwargs`` hold new nodes."""
        return self._place(old, self.graph.create_node("call_function", target, args, dict(kwargs), name or old.name))

    def call(
        self, target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None, *, like: fx.Node, name: str
    ) -> fx.Node:
        """Add a call of new nodes, with the origin and the type of a node of the old graph, and stand for none of them."""
        new = self.graph.create_node("call_function", target, args, dict(kwargs or {}), name)
        new.meta = dict(like.meta)
        return new

    def insert(self, step: fx.Node, known: Mapping[fx.Node, Any], *, like: fx.Node) -> fx.Node:
        """Copy a node of another graph, with the origin of a node of the old one."""
        new = self.graph.node_copy(step, known.__getitem__)
        new.meta = {**like.meta, "val": step.meta["val"]}
        return new

    def drop(self, old: fx.Node) -> None:
        """Leave out a node that gives its first operand."""
        self.new[old] = self.new[old.args[0]]  # type: ignore[index]

    def finish(self) -> ExportedProgram:
        """Copy the outputs, and return the new program without the constants that nothing uses."""
        output = self._old.graph.output_node()
        self.copy(output)
        for name, node in list(self._placeholders.items()):
            if not node.users:
                self.graph.erase_node(node)
                del self._tensors[name]
        nodes = self.graph.find_nodes(op="placeholder")
        returned: Any = self.graph.output_node().args[0]
        results = [
            OutputSpec(spec.kind, TensorArgument(name=out.name) if isinstance(out, fx.Node) else spec.arg, spec.target)
            for spec, out in zip(self._old.graph_signature.output_specs, returned, strict=True)
        ]
        self.graph.lint()
        return ExportedProgram(
            root=fx.GraphModule(nn.Module(), self.graph),
            graph=self.graph,
            graph_signature=ExportGraphSignature([self._specs[node.name] for node in nodes], results),
            state_dict=self._state(),
            range_constraints=self._old.range_constraints,
            module_call_graph=self._old.module_call_graph,
            example_inputs=self._old.example_inputs,
            constants={},
            verifiers=self._old.verifiers,
        )

    def _place(self, old: fx.Node, new: fx.Node) -> fx.Node:
        new.meta = dict(old.meta)
        self.new[old] = new
        return new

    def _state(self) -> dict[str, Any]:
        parameters = {spec.target for spec in self._specs.values() if spec.kind is InputKind.PARAMETER}
        return {
            name: nn.Parameter(value, requires_grad=False) if name in parameters else value
            for name, value in self._tensors.items()
        }


def constant_inputs(exported: ExportedProgram) -> dict[str, str]:
    """Placeholder name → fully qualified name of every parameter, buffer and constant tensor."""
    kinds = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)
    return {
        spec.arg.name: spec.target
        for spec in exported.graph_signature.input_specs
        if spec.kind in kinds and spec.target is not None
    }


def constant_value(exported: ExportedProgram, target: str) -> Any:
    """The parameter, buffer or constant of that fully qualified name."""
    return exported.state_dict.get(target, exported.constants.get(target))


def identifier(name: str) -> str:
    """A qualified name as an identifier.

    >>> identifier("features.0.weight")
    'features_0_weight'
    """
    return re.sub(r"\W", "_", name)


def _free_of_torch(name: str) -> str:
    """A qualified name that does not start with an attribute of the graph modules in which torch sets constants by their names.

    >>> _free_of_torch("graph.weight"), _free_of_torch("graphs.weight")
    ('graph_.weight', 'graphs.weight')
    """
    first, *rest = name.split(".")
    return ".".join([f"{first}_", *rest]) if first in _OF_GRAPH_MODULES else name


def _same(known: Tensor, value: Tensor) -> bool:
    return known.dtype == value.dtype and known.shape == value.shape and torch.equal(known, value)


def _fake_mode(exported: ExportedProgram) -> Any:
    for node in exported.graph.nodes:
        mode = getattr(node.meta.get("val"), "fake_mode", None)
        if mode is not None:
            return mode
    return torch._subclasses.FakeTensorMode()
