"""Functions and operators in a model become modules, so that rules reach them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import fx, nn

from quant_core.errors import CaptureError
from quant_core.export.eval_mode import in_eval_mode
from quant_core.export.provenance import public_name
from quant_nn.convert.tracing import check_same, float_nodes, traced
from quant_nn.functions import Cat, EltwiseAdd, ScaledDotProductAttention

_Made = tuple[nn.Module, tuple[Any, ...], dict[str, Any]]
"""A module, and what it is called with."""


def with_modules(model: nn.Module, args: tuple[Any, ...], table: Mapping[type, Any]) -> fx.GraphModule:
    """The model as a graph in which functions are modules. The model stays as it is; its layers and parameters are shared.

    ``relu``, ``sigmoid``, ``tanh``, ``hardtanh``, sums of two tensors, concatenations, average pools, dropout and attention
    products become modules, whose path is that of the module in whose code they stand, and the name of the function.

    Args:
        model: a float model.
        args: example inputs, on which graph and model are compared.
        table: the float types that rules can replace.

    Raises:
        CaptureError: when the model cannot be traced, computes something else in training mode, or the graph computes
            something else than the model.
        InputError: when the inputs do not fit the model.
    """
    with in_eval_mode(model):
        graph = traced(model, table)
        model.train()
        training = traced(model, table)
        model.eval()
    check_same(model, graph, args)
    floats = float_nodes(graph, args)
    names = {node.name for node in floats}
    _rewrite(graph, floats)
    _rewrite(training, {node for node in training.graph.nodes if node.name in names})
    _check_modes(model, graph, training)
    check_same(model, graph, args)
    for node in graph.graph.find_nodes(op="call_module"):
        node.meta.pop("nn_module_stack", None)  # a later capture finds its own, down to the quantizers
    modes = {path: module.training for path, module in model.named_modules()}
    for path, module in graph.named_modules():
        module.training = modes.get(path, model.training)
    return graph


def _rewrite(graph: fx.GraphModule, floats: set[fx.Node]) -> None:
    """Put a module in the place of each function that has one."""
    for node in list(graph.graph.nodes):
        make = _MAKERS.get(node.target) if node.op in ("call_function", "call_method") else None
        made = make(node, floats) if make is not None else None
        if made is None:
            continue
        module, args, kwargs = made
        path = _free_path(graph, node, type(module).__name__)
        graph.add_submodule(path, module)
        with graph.graph.inserting_before(node):
            call = graph.graph.call_module(path, args, kwargs)
        call.meta.update(node.meta)
        floats.add(call)
        node.replace_all_uses_with(call)
        graph.graph.erase_node(node)
    graph.graph.lint()
    graph.recompile()


def _free_path(graph: fx.GraphModule, node: fx.Node, kind: str) -> str:
    """A path below the module in whose code the function stands."""
    stack = list((node.meta.get("nn_module_stack") or {}).keys())
    owner = stack[-1].partition("@")[0] if stack else ""
    taken = {path for path, _ in graph.named_modules(remove_duplicate=False)}
    number = 0
    while True:
        name = kind.lower() if number == 0 else f"{kind.lower()}_{number}"
        path = f"{owner}.{name}" if owner else name
        if path not in taken and not (not owner and hasattr(graph, name)):
            return path
        number += 1


def _check_modes(model: nn.Module, graph: fx.GraphModule, training: fx.GraphModule) -> None:
    """The graph of eval mode stands for training mode as well, where modules tell the two apart."""
    one, other = ([_signature(node) for node in each.graph.nodes] for each in (graph, training))
    if one == other:
        return
    first = next((node for node, mine, its in zip(graph.graph.nodes, one, other, strict=False) if mine != its), None)
    place = str(first.name) if first is not None else "its end"
    raise CaptureError(
        "the model computes something else in training mode than in eval mode",
        where=public_name(type(model)),
        why=f"the two graphs differ from {place!r} on, and a graph has one path for both",
        fix="Use modules that know their mode, such as nn.Dropout, in place of `if self.training`.",
    )


def _signature(node: fx.Node) -> tuple[str, str, str]:
    return node.op, str(node.target), str((node.args, node.kwargs))


def _one_tensor(module: Callable[..., nn.Module], *names: str) -> Any:
    """Functions of one tensor whose further arguments, of these names, are those of the module."""

    def make(node: fx.Node, floats: set[fx.Node]) -> _Made | None:
        if not node.args or node.args[0] not in floats:
            return None
        given = {**dict(zip(names, node.args[1:], strict=False)), **node.kwargs}
        if len(node.args) - 1 > len(names) or any(isinstance(one, fx.Node) for one in given.values()):
            return None
        given.pop("inplace", None)
        given.pop("training", None)
        return module(**given), (node.args[0],), {}

    return make


def _sum(node: fx.Node, floats: set[fx.Node]) -> _Made | None:
    operands = (*node.args, *([node.kwargs["other"]] if "other" in node.kwargs else []))
    if len(operands) != 2 or not all(one in floats for one in operands) or node.kwargs.get("alpha", 1) != 1:
        return None
    return EltwiseAdd(), operands, {}


def _cat(node: fx.Node, floats: set[fx.Node]) -> _Made | None:
    given = {**dict(zip(("tensors", "dim"), node.args, strict=False)), **node.kwargs}
    parts, dim = given.pop("tensors", None), given.pop("dim", given.pop("axis", 0))
    if given or not isinstance(parts, list | tuple) or not all(one in floats for one in parts):
        return None
    return Cat(), (list(parts), dim), {}


def _attention(node: fx.Node, floats: set[fx.Node]) -> _Made | None:
    return ScaledDotProductAttention(), node.args, dict(node.kwargs)


_RELU, _SIGMOID, _TANH = _one_tensor(nn.ReLU, "inplace"), _one_tensor(nn.Sigmoid), _one_tensor(nn.Tanh)
_WINDOW: Final = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
_MAKERS: Final[Mapping[Any, Callable[[fx.Node, set[fx.Node]], _Made | None]]] = {
    **dict.fromkeys((torch.relu, torch.relu_, F.relu, F.relu_, "relu", "relu_"), _RELU),
    **dict.fromkeys((torch.sigmoid, F.sigmoid, "sigmoid"), _SIGMOID),
    **dict.fromkeys((torch.tanh, F.tanh, "tanh"), _TANH),
    F.hardtanh: _one_tensor(nn.Hardtanh, "min_val", "max_val", "inplace"),
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_"), _sum),
    **dict.fromkeys((torch.cat, torch.concat, torch.concatenate), _cat),
    F.avg_pool2d: _one_tensor(nn.AvgPool2d, *_WINDOW),
    F.adaptive_avg_pool2d: _one_tensor(nn.AdaptiveAvgPool2d, "output_size"),
    F.dropout: _one_tensor(nn.Dropout, "p", "training", "inplace"),
    F.scaled_dot_product_attention: _attention,
}
