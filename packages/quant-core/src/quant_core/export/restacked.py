"""Tensors that are taken apart along an axis and put together again, as layers do that pass on a list of states."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import fx

_ATEN = torch.ops.aten


class Restacked(NamedTuple):
    """What a graph can do without.

    Attributes:
        same: each node that gives a tensor which was there before, and that tensor.
        unused: nodes that only such nodes use.
    """

    same: dict[fx.Node, fx.Node]
    unused: set[fx.Node]


def restacked(nodes: Iterable[fx.Node]) -> Restacked:
    """Each ``stack(unbind(x))`` of a graph.

    >>> class Model(torch.nn.Module):
    ...     def forward(self, x):
    ...         first, second = x.unbind()
    ...         return torch.stack([first, second]), torch.stack([second, first])
    >>> graph = torch.export.export(Model(), (torch.zeros(2, 3),)).graph
    >>> {stack.name: whole.name for stack, whole in restacked(graph.nodes).same.items()}
    {'stack': 'x'}
    """
    same = {node: whole for node in nodes if (whole := _whole(node)) is not None}
    unused: set[fx.Node] = set()
    for node in same:
        parts = [part for part in node.all_input_nodes if all(user in same for user in part.users)]
        unused.update(parts)
        taken_apart = node.all_input_nodes[0].args[0]
        if isinstance(taken_apart, fx.Node) and all(user in unused for user in taken_apart.users):
            unused.add(taken_apart)
    return Restacked(same, unused)


def _whole(stack: fx.Node) -> fx.Node | None:
    """The tensor whose parts are stacked, all of them in their order along their axis."""
    if stack.target is not _ATEN.stack.default:
        return None
    parts, axis = stack.args[0], stack.args[1] if len(stack.args) > 1 else 0
    if not isinstance(parts, (list, tuple)) or not all(isinstance(part, fx.Node) for part in parts):
        return None
    source = parts[0].args[0] if parts[0].target is operator.getitem else None  # type: ignore[union-attr]
    if not isinstance(source, fx.Node) or source.target is not _ATEN.unbind.int:
        return None
    in_order = all(part.target is operator.getitem and part.args == (source, index) for index, part in enumerate(parts))
    along = source.args[1] if len(source.args) > 1 else 0
    whole = source.args[0]
    if not in_order or along != axis or not isinstance(whole, fx.Node) or len(source.meta["val"]) != len(parts):
        return None
    return whole
