"""Parts of a quantized constant: one block of rows of a weight, for example, with which another input is multiplied.

Operations that only move or pick elements may be done on the integers in place of the values. The part then stays integers with
a scale, and does not become a float constant.
"""

from __future__ import annotations

import operator
from collections.abc import Collection
from typing import Any, Final

import torch
from torch import fx

_ATEN = torch.ops.aten
_MOVES: Final = (
    operator.getitem,
    _ATEN.chunk.default,
    _ATEN.narrow.default,
    _ATEN.permute.default,
    _ATEN.select.int,
    _ATEN.slice.Tensor,
    _ATEN.split.Tensor,
    _ATEN.split_with_sizes.default,
    _ATEN.squeeze.dim,
    _ATEN.t.default,
    _ATEN.transpose.int,
    _ATEN.unbind.int,
    _ATEN.unsqueeze.default,
)  # none that mixes axes: a scale for each channel stays one for each channel


def moved_from(node: fx.Node, ops: Collection[Any]) -> fx.Node | None:
    """The node of one of ``ops`` whose elements ``node`` holds, moved or picked; ``None`` where there is none."""
    source = node
    while source.target in _MOVES and source.all_input_nodes == [source.args[0]]:
        (source,) = source.all_input_nodes
    return source if source.target in ops else None


def move(node: fx.Node, source: fx.Node, x: Any) -> Any:
    """What the operations from ``source`` to ``node`` make of ``x`` in the place of the result of ``source``."""
    if node is source:
        return x
    operation: Any = node.target
    return operation(move(node.all_input_nodes[0], source, x), *node.args[1:], **node.kwargs)
