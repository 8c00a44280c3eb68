"""A model as a graph whose layers are its own, traced in a way that says where it cannot be."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx, nn

from quant_core.errors import CaptureError, InputError
from quant_core.export.eval_mode import in_eval_mode
from quant_core.export.provenance import public_name


class _LayerTracer(fx.Tracer):
    """Layers that rules can replace are kept whole, and so are those of torch. Unpickling a graph makes one without arguments."""

    def __init__(self, table: Mapping[type, Any] = MappingProxyType({})) -> None:
        super().__init__()
        self.table = table
        self.record_stack_traces = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in self.table or super().is_leaf_module(m, module_qualified_name)


def traced(model: nn.Module, table: Mapping[type, Any]) -> fx.GraphModule:
    """A graph of the model in its present mode, which holds the layers of the model themselves.

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
        graph = tracer.trace(model)
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


def _last_own_line(failure: BaseException) -> str:
    """``file:line`` of the innermost code that is none of torch."""
    frames = traceback.extract_tb(failure.__traceback__)
    own = [
        frame for frame in frames if "/torch/" not in frame.filename.replace("\\", "/") and frame.filename != __file__
    ]
    return f"{own[-1].filename}:{own[-1].lineno}" if own else ""


class Values(fx.Interpreter):
    """Runs a graph, and notes which nodes give float tensors.

    Attributes:
        floats: these nodes.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.floats: set[fx.Node] = set()

    def run_node(self, n: fx.Node) -> Any:
        """Compute one node."""
        found = super().run_node(n)
        if isinstance(found, Tensor) and found.is_floating_point():
            self.floats.add(n)
        return found


def float_nodes(graph: fx.GraphModule, args: tuple[Any, ...]) -> set[fx.Node]:
    """The nodes that give float tensors for example inputs."""
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
    for one, other in zip(wanted, found, strict=True):
        if isinstance(one, Tensor) and not torch.equal(one, other):
            raise CaptureError(
                "the graph does not compute what the model computes",
                where=public_name(type(model)),
                why=f"for the example inputs they differ by up to {float((one - other).abs().max()):.3g}",
                fix="Some code of the model was run once, when it was traced; convert without graph mode.",
            )
