"""Layers whose results meet in one place quantize them by one quantizer, so that they have equal scales there.

A join, such as a concatenation, that has a quantizer of its operands hands it to the layers that the operands come from: each of
them takes it in place of its ``output_quant``, and the join quantizes nothing. Values are then rounded once. Joins that have an
operand in common have one quantizer altogether.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterator
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import fx, nn

from quant_core.proxies import QuantProxy

_KEEPING_LAYERS: Final = (nn.ReLU, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.Dropout, nn.Identity, nn.Flatten)
_KEEPING_FUNCTIONS: Final = frozenset(
    {
        *(torch.relu, F.relu, torch.flatten, torch.reshape, F.max_pool1d, F.max_pool2d, F.max_pool3d, F.dropout),
        *(torch.permute, torch.transpose, torch.squeeze, torch.unsqueeze, torch.chunk, torch.split, operator.getitem),
        *("relu", "flatten", "reshape", "view", "contiguous"),
        *("permute", "transpose", "squeeze", "unsqueeze", "chunk", "split"),
    }
)


def share_quantizers(graph: fx.GraphModule, joins: Collection[str]) -> None:
    """Share the quantizers of joins with the layers before them, wherever all operands come from such layers.

    Args:
        graph: a quantized graph; its layers are changed.
        joins: the paths of the joins.
    """
    groups: list[tuple[QuantProxy, list[nn.Module]]] = []
    for node in graph.graph.find_nodes(op="call_module"):
        if node.target not in joins:
            continue
        join: Any = graph.get_submodule(node.target)
        found = list(_producers(graph, node, joins))
        if join.input_quant is None or not found or any(one is None for one in found):
            continue
        layers: list[Any] = list({id(one): one for one in found}.values())
        met = [group for group in groups if any(one is layer for one in group[1] for layer in layers)]
        proxy = met[0][0] if met else join.input_quant
        for group in met:
            groups.remove(group)
            layers += [one for one in group[1] if not any(one is layer for layer in layers)]
        groups.append((proxy, layers))
        join.input_quant = None
    for proxy, layers in groups:
        for layer in layers:
            proxy.add_owner(layer)
            layer.output_quant = proxy


def _producers(graph: fx.GraphModule, node: fx.Node, joins: Collection[str]) -> Iterator[nn.Module | None]:
    """The layers that the operands of a join come from; ``None`` for one that comes from no layer with an output quantizer."""
    for operand in node.all_input_nodes:
        yield from _producer(graph, operand, joins)


def _producer(graph: fx.GraphModule, node: fx.Node, joins: Collection[str]) -> Iterator[nn.Module | None]:
    layer: Any = graph.get_submodule(str(node.target)) if node.op == "call_module" else None
    if isinstance(getattr(layer, "output_quant", None), QuantProxy):
        yield layer
    elif layer is not None and node.target in joins and layer.input_quant is None:
        yield from _producers(graph, node, joins)
    elif type(layer) in _KEEPING_LAYERS or node.target in _KEEPING_FUNCTIONS:
        yield from _producer(graph, node.all_input_nodes[0], joins)
    else:
        yield None
