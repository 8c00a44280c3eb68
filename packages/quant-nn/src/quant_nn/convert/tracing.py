"""A model as a graph whose layers are its own, traced in a way that says where it cannot be."""

from __future__ import annotations

import copy
import inspect
import traceback
import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx, nn

from quant_core.errors import CaptureError, InputError
from quant_core.export.eval_mode import in_eval_mode
from quant_core.export.provenance import public_name
from quant_nn.convert.ends import CARRIES_FLOATS


class _LayerTracer(fx.Tracer):
    """Layers that rules can replace are kept whole, and so are those of torch. Unpickling a graph makes one without arguments."""

    def __init__(self, table: Mapping[type, Any] = MappingProxyType({})) -> None:
        super().__init__()
        self.table = table
        self.record_stack_traces = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in self.table or super().is_leaf_module(m, module_qualified_name)


def traced(model: nn.Module, args: tuple[Any, ...], table: Mapping[type, Any]) -> fx.GraphModule:
    """A graph of the model in its present mode, which holds the layers of the model themselves.

    Inputs that are not given have their defaults, and are no inputs of the graph.

    Raises:
        CaptureError: when its code depends on values, or modules that are made of others have hooks.
    """
    tracer = _LayerTracer(table)
    for path, module in model.named_modules():
        if module._forward_hooks or module._forward_pre_hooks:
            if path and tracer.is_leaf_module(module, path):
                continue
            raise CaptureError(
                "a module that is made of others has a hook",
                where=path or public_name(type(module)),
                why="graph mode keeps layers and the calls between them; nothing is left that would call this hook",
                fix="Remove the hook and register it on the model that graph mode gives, or convert without graph mode.",
            )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of defaults that the graph does not check
            graph = tracer.trace(model, concrete_args=_defaults(model, args))
        _drop_unused_inputs(graph, len(args))
    except Exception as failure:
        raise CaptureError(
            "the model cannot be traced",
            where=_last_own_line(failure) or public_name(type(model)),
            why=f"{type(failure).__name__}: {(str(failure).splitlines() or ['no message'])[0]}",
            fix="Graph mode takes code whose path does not depend on values. Change this line, or write modules in place of the "
            "functions of this model and convert without graph mode.",
        ) from failure
    for node in graph.nodes:
        node.type = None  # an annotation that is a string would end up in the code, which then cannot be pickled
    return fx.GraphModule(model, graph, class_name=type(model).__name__)


def give_own_containers(graph: fx.GraphModule, table: Mapping[type, Any]) -> None:
    """Copy the modules of torch that contain layers, such as transformer encoders: replacing these then leaves the model alone.

    The layers themselves, and all tensors, stay those of the model.
    """
    for path in {str(node.target) for node in graph.graph.find_nodes(op="call_module")}:
        module = graph.get_submodule(path)
        own = _own_container(module, table)
        if own is not module:
            graph.set_submodule(path, own)


def _own_container(module: nn.Module, table: Mapping[type, Any]) -> nn.Module:
    if type(module) in table or not any(type(part) in table for part in module.modules()):
        return module
    own = copy.copy(module)
    own.__dict__["_modules"] = {
        name: None if part is None else _own_container(part, table) for name, part in module._modules.items()
    }
    return own


def _defaults(model: nn.Module, args: tuple[Any, ...]) -> dict[str, Any]:
    """The inputs of a model that are not given, and have a default."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = [one for one in inspect.signature(model.forward).parameters.values() if one.kind in kinds]
    return {one.name: one.default for one in parameters[len(args) :] if one.default is not one.empty}


def _drop_unused_inputs(graph: fx.Graph, given: int) -> None:
    """Remove the inputs that have their defaults, with the nodes that compare them with these."""
    for node in graph.find_nodes(op="placeholder")[given:]:
        if node.target.startswith("*"):
            continue
        compared = [node]
        for one in compared:
            compared.extend(one.users)
        for one in reversed(dict.fromkeys(compared)):
            graph.erase_node(one)


def _last_own_line(failure: BaseException) -> str:
    """``file:line`` of the innermost code that is none of torch."""
    frames = traceback.extract_tb(failure.__traceback__)
    own = [
        frame for frame in frames if "/torch/" not in frame.filename.replace("\\", "/") and frame.filename != __file__
    ]
    return f"{own[-1].filename}:{own[-1].lineno}" if own else ""


class Values(fx.Interpreter):
    """Runs a graph, and notes which nodes give float tensors; that they carry some, in tuples too, stands in their ``meta``.

    Attributes:
        floats: these nodes, and how many axes each tensor has.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.floats: dict[fx.Node, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Compute one node."""
        found = super().run_node(n)
        n.meta[CARRIES_FLOATS] = any(map(_is_float, torch.utils._pytree.tree_leaves(found)))
        if _is_float(found):
            self.floats[n] = found.dim()
        return found


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def float_nodes(graph: fx.GraphModule, args: tuple[Any, ...]) -> dict[fx.Node, int]:
    """The nodes that give float tensors for example inputs, and how many axes each has."""
    values = Values(graph)
    with torch.no_grad(), in_eval_mode(graph):
        values.run(*args)
    return values.floats


def check_same(model: nn.Module, graph: fx.GraphModule, args: tuple[Any, ...]) -> None:
    """Refuse a graph that does not compute what the model computes in eval mode, to the bit.

    Raises:
        CaptureError: says how far they are apart.
        InputError: when the inputs do not fit the model.
    """
    with torch.no_grad(), in_eval_mode(model):
        try:
            expected = model(*args)
        except Exception as failure:
            raise InputError(
                "the example inputs do not fit the model",
                why=f"{type(failure).__name__}: {(str(failure).splitlines() or ['no message'])[0]}",
                fix="Pass one example for each argument of forward, as a tuple.",
            ) from failure
        with in_eval_mode(graph):
            got = graph(*args)
    wanted, found = (torch.utils._pytree.tree_leaves(one) for one in (expected, got))
    difference = _difference(wanted, found)
    if difference is not None:
        raise CaptureError(
            "the graph does not compute what the model computes",
            where=public_name(type(model)),
            why=f"for the example inputs {difference}",
            fix="Some code of the model was run once, when it was traced, or changes a value in place that is used again; "
            "convert without graph mode.",
        )


def _difference(wanted: list[Any], found: list[Any]) -> str | None:
    """In what the results of a model and its graph differ, ``None`` where they do not."""
    if len(wanted) != len(found):
        return f"the model gives {len(wanted)} values, and the graph {len(found)}"
    for one, other in zip(wanted, found, strict=True):
        if not isinstance(one, Tensor):
            continue
        if not isinstance(other, Tensor) or one.shape != other.shape:
            return "they give values of other kinds or shapes"
        if not torch.equal(one, other):
            return f"they differ by up to {float((one.double() - other.double()).abs().max()):.3g}"
    return None
