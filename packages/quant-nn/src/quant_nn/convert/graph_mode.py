"""Functions and operators in a model become modules, so that rules reach them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import fx, nn

from quant_core.errors import CaptureError
from quant_core.export.eval_mode import in_eval_mode
from quant_core.export.provenance import public_name
from quant_nn.convert.tracing import check_same, float_nodes, give_own_containers, traced
from quant_nn.functions import Cat, EltwiseAdd, ScaledDotProductAttention


@dataclass(frozen=True)
class _Call:
    """A call of a function or method.

    Attributes:
        node: its node.
        floats: the nodes that give float tensors, and how many axes these have.
        in_training: whether the graph is that of training mode.
    """

    node: fx.Node
    floats: Mapping[Any, int]
    in_training: bool

    def given(self, *names: str) -> dict[str, Any]:
        """The arguments by name; of those that are given by position, these are the names."""
        return {**dict(zip(names, self.node.args, strict=False)), **self.node.kwargs}

    def is_float(self, *operands: Any) -> bool:
        """Whether all operands are results that are float tensors."""
        return all(isinstance(one, fx.Node) and one in self.floats for one in operands)


@dataclass(frozen=True)
class _Made:
    """A module, what it is called with, and whether the axes behind the channels of its result are dropped."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    flattened: bool = False


_Maker = Callable[[_Call], _Made | None]
"""What makes a module of a call, where there is one."""


def with_modules(model: nn.Module, args: tuple[Any, ...], table: Mapping[type, Any]) -> fx.GraphModule:
    """The model as a graph in which functions are modules. The model stays as it is; its layers and parameters are shared.

    ``relu``, ``relu6``, ``sigmoid``, ``tanh``, ``hardtanh``, sums of two tensors, concatenations, average pools, means over
    height and width, dropout and attention products become modules. Their path is that of the module in whose code they stand,
    and the name of the function.

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
        graph = traced(model, args, table)
        model.train()
        training = traced(model, args, table)
        model.eval()
    check_same(model, graph, args)
    floats = float_nodes(graph, args)
    axes = {node.name: number for node, number in floats.items()}
    _rewrite(graph, floats, in_training=False)
    found = {node: axes[node.name] for node in training.graph.nodes if node.name in axes}
    _rewrite(training, found, in_training=True)
    _check_modes(model, graph, training)
    check_same(model, graph, args)
    give_own_containers(graph, table)
    for node in graph.graph.find_nodes(op="call_module"):
        node.meta.pop("nn_module_stack", None)  # a later capture finds its own, down to the quantizers
    modes = {path: module.training for path, module in model.named_modules()}
    for path, module in graph.named_modules():
        module.training = modes.get(path, model.training)
    return graph


def _rewrite(graph: fx.GraphModule, floats: dict[fx.Node, int], *, in_training: bool) -> None:
    """Put a module in the place of each function that has one."""
    for node in list(graph.graph.nodes):
        make = _MAKERS.get(node.target) if node.op in ("call_function", "call_method") else None
        made = make(_Call(node, floats, in_training)) if make is not None else None
        if made is None:
            continue
        path = _free_path(graph, node, type(made.module).__name__)
        graph.add_submodule(path, made.module)
        with graph.graph.inserting_before(node):
            call = result = graph.graph.call_module(path, made.args, made.kwargs)
            if made.flattened:
                result = graph.graph.call_method("flatten", (call, 1))
        for one in dict.fromkeys((call, result)):
            one.meta.update(node.meta)
            floats[one] = floats.get(node, 0)
        node.replace_all_uses_with(result)
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


def _one_tensor(module: Callable[..., nn.Module], *names: str) -> _Maker:
    """Functions of one tensor whose further arguments, of these names, are those of the module."""

    def make(call: _Call) -> _Made | None:
        given = call.given("input", *names)
        x = given.pop("input", None)
        if not call.is_float(x) or given.keys() - {*names} or any(isinstance(one, fx.Node) for one in given.values()):
            return None
        given.pop("inplace", None)
        return _Made(module(**given), (x,))

    return make


def _dropout(call: _Call) -> _Made | None:
    """``F.dropout(x, p, self.training)``; one that is told its mode in another way is no module."""
    given = call.given("input", "p", "training", "inplace")
    if not call.is_float(given.get("input")) or given.get("training", True) is not call.in_training:
        return None
    return _Made(nn.Dropout(given.get("p", 0.5)), (given["input"],))


def _sum(call: _Call) -> _Made | None:
    given = call.given("input", "other")
    operands = (given.pop("input", None), given.pop("other", None))
    if given.pop("alpha", 1) != 1 or given or not call.is_float(*operands):
        return None
    return _Made(EltwiseAdd(), operands)


def _cat(call: _Call) -> _Made | None:
    given = call.given("tensors", "dim")
    parts, dim = given.pop("tensors", None), given.pop("dim", given.pop("axis", 0))
    if given or not isinstance(parts, list | tuple) or not call.is_float(*parts):
        return None
    return _Made(Cat(), (list(parts), dim))


def _mean(call: _Call) -> _Made | None:
    """The mean over height and width of images."""
    given = call.given("input", "dim", "keepdim")
    x, dim, kept = given.pop("input", None), given.pop("dim", None), given.pop("keepdim", False)
    if given or not call.is_float(x) or call.floats[x] != 4:
        return None
    if not isinstance(dim, list | tuple) or {one % 4 for one in dim} != {2, 3}:
        return None
    return _Made(nn.AdaptiveAvgPool2d(1), (x,), flattened=not kept)


def _attention(call: _Call) -> _Made | None:
    return _Made(ScaledDotProductAttention(), call.node.args, dict(call.node.kwargs))


_RELU, _SIGMOID, _TANH = _one_tensor(nn.ReLU, "inplace"), _one_tensor(nn.Sigmoid), _one_tensor(nn.Tanh)
_WINDOW: Final = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
_MAKERS: Final[Mapping[Any, _Maker]] = {
    **dict.fromkeys((torch.relu, torch.relu_, F.relu, F.relu_, "relu", "relu_"), _RELU),
    **dict.fromkeys((torch.sigmoid, F.sigmoid, "sigmoid"), _SIGMOID),
    **dict.fromkeys((torch.tanh, F.tanh, "tanh"), _TANH),
    F.relu6: _one_tensor(nn.ReLU6, "inplace"),
    F.hardtanh: _one_tensor(nn.Hardtanh, "min_val", "max_val", "inplace"),
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_"), _sum),
    **dict.fromkeys((torch.cat, torch.concat, torch.concatenate), _cat),
    **dict.fromkeys((torch.mean, "mean"), _mean),
    F.avg_pool2d: _one_tensor(nn.AvgPool2d, *_WINDOW),
    F.adaptive_avg_pool2d: _one_tensor(nn.AdaptiveAvgPool2d, "output_size"),
    F.dropout: _dropout,
    F.scaled_dot_product_attention: _attention,
}
