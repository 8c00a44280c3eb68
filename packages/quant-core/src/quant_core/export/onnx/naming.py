"""Names in an ONNX model: those of the user's modules, and nothing of the tool that wrote them.

- nodes and their values: module path and operator, ``features.0/Conv``;
- results of activation quantizers: the path of the quantizer, ``relu1.act_quant``;
- initializers: qualified names, ``conv1.weight``, ``relu1.act_quant.scale``; those that a node needs besides, after the node:
  ``Reshape/input_1``;
- inputs: the arguments of ``forward``; outputs: ``output``, or their keys or numbers where there are several, with a number where
  an input or an initializer has the name;
- in a compact file: ``features.0.weight/DQ`` for DequantizeLinear, and numbers for the values between nodes;
- axes of varying size: ``batch`` for the first axis, else the input's name and the number of the axis.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from torch.utils import _pytree as pytree

from quant_core.export.signature import CallSignature

MARK: Final = "quantizer"
ORIGIN: Final = "@"  # starts the name of a scope that stands for a node of the program
SCOPES: Final = "pkg.torch.onnx.name_scopes"
"""The metadata of a node from which its name is made; a step that adds nodes gives them that of another one."""
_ABBREVIATIONS: Final = {"QuantizeLinear": "Q", "DequantizeLinear": "DQ"}
_SYMBOL: Final = re.compile(r"\bs\d+\b")


def tidy(model: Any, signature: CallSignature, names: Mapping[str, str], *, compact: bool) -> dict[str, str]:
    """Rename everything in an ``onnx_ir`` model in place, drop the metadata of the exporter.

    Args:
        model: the model.
        signature: how it is called.
        names: what modules are called, by path, where it is something else.
        compact: whether values between nodes are numbered, and operators of quantization abbreviated in the names of nodes.

    Returns:
        The name of the value of each marked quantizer by the quantizer's name, and of each other node of the program that the
        model still computes by the node's name.
    """
    graph = model.graph
    for value in graph.inputs:
        # The exporter renames an input that is an output as well.
        if value.name not in signature.inputs and value.name.removesuffix("_orig") in signature.inputs:
            value.name = value.name.removesuffix("_orig")
    taken: set[str] = {value.name for value in graph.inputs} | set(graph.initializers)
    produced = {
        id(value): _free(name, taken)
        for name, value in zip(output_names(signature), graph.outputs, strict=True)
        if value.producer() is not None
    }
    marked: dict[str, str] = {}
    origins: dict[str, str] = {}
    numbers = map(str, itertools.count())
    for node in _all_nodes(graph):
        path = names.get(_path(node), _path(node))
        operator = _ABBREVIATIONS.get(node.op_type, node.op_type) if compact else node.op_type
        node.name = _free(f"{path}/{operator}" if path else operator, taken)
        for index, value in enumerate(node.outputs):
            quantizer = value.metadata_props.get(MARK)
            if id(value) in produced:
                value.name = produced[id(value)]
            elif compact:
                value.name = _free(next(numbers), taken)
            elif quantizer is not None and path:
                value.name = _free(path, taken)
            else:
                value.name = node.name if index == 0 else f"{node.name}:{index}"
            if quantizer is not None and node.graph is graph:
                marked[quantizer] = value.name
        if node.graph is graph:  # a runtime shows no values inside of a loop
            origins[origin(node)] = node.outputs[0].name  # the last one of those that a node became is its result
        for index, value in enumerate(value for body in _bodies(node) for value in body.inputs):
            value.name = _free(f"{node.name}/step_{index}", taken)
    _name_helpers(graph, taken)
    _name_axes(graph)
    _drop_metadata(model)
    _drop_repetitions(graph)
    origins.pop("", None)
    return origins | marked


def _bodies(node: Any) -> list[Any]:
    """The graphs inside of a node, such as that of one step of a loop."""
    return [attribute.value for attribute in node.attributes.values() if attribute.type.name == "GRAPH"]


def _all_nodes(graph: Any) -> Iterator[Any]:
    """The nodes of a graph, each before those inside of it."""
    for node in graph:
        yield node
        for body in _bodies(node):
            yield from _all_nodes(body)


def _path(node: Any) -> str:
    """The path of the module that a node comes from; a quantizer counts as one module."""
    scopes = [scope for scope in _scopes(node) if not scope.startswith(ORIGIN)]
    path = scopes[-2] if len(scopes) > 1 else ""
    return path.partition(".tensor_quant")[0]


def origin(node: Any) -> str:
    """The name of the node of the program that a node of an ``onnx_ir`` model comes from; empty for none.

    It can be told until the model is tidied.
    """
    return next((scope.removeprefix(ORIGIN) for scope in _scopes(node) if scope.startswith(ORIGIN)), "")


def forget_origin(node: Any) -> None:
    """Let a node be one of its module that gives what no node of the program does."""
    node.metadata_props[SCOPES] = repr([scope for scope in _scopes(node) if not scope.startswith(ORIGIN)])


def _scopes(node: Any) -> list[str]:
    """What the exporter notes of a node: the paths of the modules around it, and its own name."""
    scopes: list[str] = ast.literal_eval(node.metadata_props.get(SCOPES, "['', '']"))
    return scopes


def _free(name: str, taken: set[str]) -> str:
    candidate, number = name, 1
    while candidate in taken:
        candidate = f"{name}_{number}"
        number += 1
    taken.add(candidate)
    return candidate


def output_names(signature: CallSignature) -> Iterator[str]:
    """The names of the outputs, in order: ``output``, or their keys or numbers where there are several."""
    count = signature.out_spec.num_leaves
    if count == 1:
        yield "output"
        return
    leaves, _ = pytree.tree_flatten_with_path(signature.nest(list(range(count))))
    for path, _leaf in leaves:
        words = [str(getattr(step, "key", getattr(step, "idx", getattr(step, "name", "")))) for step in path]
        name = ".".join(words)
        yield f"output_{name}" if name[:1].isdigit() else name


def _name_helpers(graph: Any, taken: set[str]) -> None:
    """Initializers that the exporter made up are named after the node that uses them."""
    for value in list(graph.initializers.values()):
        if not re.fullmatch(r"val_\d+", value.name or ""):
            continue
        user, index = next(iter(value.uses()))
        value.name = _free(f"{user.name}/input_{index}", taken)


def _name_axes(graph: Any) -> None:
    names: dict[str, str] = {}
    for value in graph.inputs:
        for axis, size in enumerate(value.shape or ()):
            for symbol in _SYMBOL.findall(str(size)):
                names.setdefault(symbol, "batch" if axis == 0 else f"{value.name}_axis_{axis}")
    nodes = list(_all_nodes(graph))
    inner = [value for node in nodes for body in _bodies(node) for value in body.inputs]
    values = [*graph.inputs, *graph.outputs, *inner, *(value for node in nodes for value in node.outputs)]
    for value in values:
        if value.shape is not None:
            value.shape = type(value.shape)([_named(size, names) for size in value.shape])


def _named(size: Any, names: dict[str, str]) -> Any:
    """A size with its symbols replaced by names."""
    if isinstance(size, int) or not _SYMBOL.search(str(size)):
        return size
    return _SYMBOL.sub(lambda match: names.get(match.group(), match.group()), str(size))


def _drop_metadata(model: Any) -> None:
    graph = model.graph
    nodes = list(_all_nodes(graph))
    for owner in (model, graph, *graph.inputs, *graph.outputs, *graph.initializers.values(), *nodes):
        owner.metadata_props.clear()
        owner.doc_string = None
    for node in nodes:
        for value in (*node.outputs, *(value for body in _bodies(node) for value in body.inputs)):
            value.metadata_props.clear()


def _drop_repetitions(graph: Any) -> None:
    """An initializer says its own type and shape; the file need not say them again."""
    for value in graph.initializers.values():
        if not value.is_graph_output():
            value.type = None
            value.shape = None
