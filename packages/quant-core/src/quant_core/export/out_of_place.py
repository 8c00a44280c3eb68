"""Operations that change their operand become those that give a new value, so that targets know one form of each.

``relu_`` becomes ``relu``, and ``out += x`` becomes ``add``. Whoever reads the operand afterwards reads the new value. An
operation stays as it is where the memory that it changes is read afterwards through a view that was taken before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from quant_core.export.builder import ProgramBuilder, constant_inputs, constant_value
from quant_core.export.fold import is_identity


def out_of_place(exported: ExportedProgram) -> ExportedProgram:
    """Build a new program without operations in place, as far as possible; the given one is left as it is."""
    counterparts = {node: op for node in exported.graph.nodes if (op := _counterpart(node)) is not None}
    if not counterparts:
        return exported
    builder, names = ProgramBuilder(exported), constant_inputs(exported)
    order = {node: place for place, node in enumerate(exported.graph.nodes)}
    sharing = _by_memory(exported.graph)
    for node in exported.graph.nodes:
        if node.op == "placeholder" and node.name in names:
            builder.new[node] = builder.constant(names[node.name], constant_value(exported, names[node.name]))
        elif node in counterparts and not _is_read_elsewhere(node, sharing, order):
            args = fx.map_arg(node.args, builder.new.__getitem__)
            kwargs = fx.map_arg(node.kwargs, builder.new.__getitem__)
            builder.new[node.args[0]] = builder.replace(node, counterparts[node], args, kwargs, node.name.rstrip("_"))
        elif node.op not in ("placeholder", "output"):
            builder.copy(node)
    return builder.finish()


def is_in_place(node: fx.Node) -> bool:
    """Whether an operation changes an operand."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def changed_operands(node: fx.Node) -> list[fx.Node]:
    """The operands into which an operation writes."""
    if not is_in_place(node):
        return []
    target: Any = node.target
    places = enumerate(target._schema.arguments)
    written = [(place, one.name) for place, one in places if one.alias_info is not None and one.alias_info.is_write]
    given = [node.args[place] if place < len(node.args) else node.kwargs.get(name) for place, name in written]
    return [leaf for leaf in pytree.tree_leaves(given) if isinstance(leaf, fx.Node)]


def _counterpart(node: fx.Node) -> Any:
    """The operation that gives what this one writes into its first operand; ``None`` where there is none."""
    op: Any = node.target
    if not is_in_place(node) or op.namespace != "aten":
        return None
    base = op._schema.name.removeprefix("aten::")
    found = getattr(getattr(torch.ops.aten, base.removesuffix("_"), None), op._overloadname, None)
    if not base.endswith("_") or found is None or found._schema.is_mutable or not isinstance(node.args[0], fx.Node):
        return None
    if [one.name for one in found._schema.arguments] != [one.name for one in op._schema.arguments]:
        return None
    values: Any = fx.map_arg((node.args, node.kwargs), lambda used: used.meta.get("val"))
    given, result = node.meta.get("val"), found(*values[0], **values[1])  # of tensors without data
    return found if isinstance(given, Tensor) and (given.dtype, given.shape) == (result.dtype, result.shape) else None


def _by_memory(graph: fx.Graph) -> Mapping[Any, list[fx.Node]]:
    """The nodes that hold each piece of memory."""
    found: dict[Any, list[fx.Node]] = defaultdict(list)
    for node in graph.nodes:
        for memory in memory_of(node):
            found[memory].append(node)
    return found


def memory_of(node: fx.Node) -> set[Any]:
    """What tells whether two nodes share memory: the storages of the tensors that one gives."""
    while is_identity(node):  # gives its operand itself, which the tensors without data do not show of a dropout
        node = node.all_input_nodes[0]
    leaves = pytree.tree_leaves(node.meta.get("val"))
    return {leaf.untyped_storage()._cdata for leaf in leaves if isinstance(leaf, Tensor)}


def _is_read_elsewhere(node: fx.Node, sharing: Mapping[Any, list[fx.Node]], order: Mapping[fx.Node, int]) -> bool:
    """Whether the memory that a node changes is read afterwards through something else that was there before it."""
    changed: Any = node.args[0]
    others = {other for memory in memory_of(changed) for other in sharing[memory] if order[other] < order[node]}
    return any(order[user] > order[node] for other in others - {changed} for user in other.users)
