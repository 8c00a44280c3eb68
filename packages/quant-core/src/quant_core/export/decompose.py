"""Extensions of the dialect become core ops, so that every target takes them.

A plugin registers an op with its decomposition: a function of the same arguments, written in ``aten`` and ``quant`` ops. The
pass traces that function for each node of the op and puts the trace in the node's place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.fx.experimental.proxy_tensor import make_fx

from quant_core.errors import SpecError
from quant_core.export.builder import ProgramBuilder, constant_inputs, constant_value
from quant_core.plugins import Registry, load_attribute

Decomposition = Callable[..., Tensor]


def registered_decompositions(plugins: Registry) -> Mapping[Any, Decomposition]:
    """The decomposition of each registered op, by the op as it stands in a graph."""
    found: dict[Any, Decomposition] = {}
    for registered in plugins.ops.values():
        op = load_attribute(registered.item.op)
        overload = op.default if isinstance(op, torch._ops.OpOverloadPacket) else op
        found[overload] = load_attribute(registered.item.decomposition)
    return found


def decompose(exported: ExportedProgram, decompositions: Mapping[Any, Decomposition]) -> ExportedProgram:
    """Build a new program in which registered ops are replaced by what they decompose into; the given one is left as it is.

    Raises:
        SpecError: when a decomposition does not give a tensor of the op's shape.
    """
    if not any(node.target in decompositions for node in exported.graph.nodes if node.op == "call_function"):
        return exported
    builder = ProgramBuilder(exported)
    names = constant_inputs(exported)
    for node in exported.graph.nodes:
        if node.name in names and node.op == "placeholder":
            target = names[node.name]
            builder.new[node] = builder.constant(target, constant_value(exported, target))
        elif node.op == "call_function" and node.target in decompositions:
            _inline(builder, node, decompositions[node.target])
        elif node.op not in ("placeholder", "output"):
            builder.copy(node)
    return builder.finish()


def _inline(builder: ProgramBuilder, node: fx.Node, decomposition: Decomposition) -> None:
    """Trace the decomposition on the node's operands, and copy the trace to the end of the new graph."""
    operands, rebuild = _tensors_of(node)
    fakes = [operand.meta["val"] for operand in operands]
    traced = make_fx(lambda *tensors: decomposition(*rebuild(tensors)[0], **rebuild(tensors)[1]))(*fakes)
    inner: dict[fx.Node, fx.Node] = {}
    placeholders = traced.graph.find_nodes(op="placeholder")
    inner.update(zip(placeholders, (builder.new[operand] for operand in operands), strict=True))
    for step in traced.graph.nodes:
        if step.op == "call_function":
            inner[step] = builder.insert(step, inner, like=node)
    result = traced.graph.output_node().args[0]
    if not isinstance(result, fx.Node) or result.meta["val"].shape != node.meta["val"].shape:
        raise SpecError(
            f"the decomposition of {node.target} does not give what the op gives",
            where=node.name,
            why="it must return one tensor of the shape of the op's result",
            fix="Report this to the authors of the plugin that registers the op.",
        )
    builder.new[node] = inner[result]


def _tensors_of(node: fx.Node) -> tuple[list[fx.Node], Callable[[Any], tuple[Any, Any]]]:
    """The nodes among the operands, and a function that puts tensors in their places."""
    operands = list(dict.fromkeys(node.all_input_nodes))

    def rebuild(tensors: Any) -> tuple[Any, Any]:
        known = dict(zip(operands, tensors, strict=True))
        return fx.map_arg(node.args, known.__getitem__), fx.map_arg(node.kwargs, known.__getitem__)

    return operands, rebuild
