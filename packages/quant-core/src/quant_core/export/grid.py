"""Which values of a program lie on a quantization grid: the metadata that an integer target fuses by.

A quantizer puts its output on a grid. Operations that only move or select values leave them on it; everything else leaves it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import torch
from torch import fx

from quant_core.export.program import Program
from quant_core.export.quantizer import Quantizer

_aten = torch.ops.aten

_MOVES: Final = frozenset(
    {
        _aten.clone.default,
        _aten.contiguous.default,
        _aten.expand.default,
        _aten.flatten.using_ints,
        _aten.permute.default,
        _aten.pixel_shuffle.default,
        _aten.pixel_unshuffle.default,
        _aten.reshape.default,
        _aten.select.int,
        _aten.slice.Tensor,
        _aten.squeeze.dim,
        _aten.squeeze.dims,
        _aten.transpose.int,
        _aten.unflatten.int,
        _aten.unsqueeze.default,
        _aten.upsample_nearest1d.default,
        _aten.upsample_nearest1d.vec,
        _aten.upsample_nearest2d.default,
        _aten.upsample_nearest2d.vec,
        _aten.upsample_nearest3d.default,
        _aten.upsample_nearest3d.vec,
        _aten.view.default,
    }
)
"""Ops that move or repeat values: a per-tensor grid survives them."""

_PADS: Final = frozenset({_aten.constant_pad_nd.default, _aten.pad.default})
"""Ops that put values around others: a per-tensor grid survives zeros, and values from inside."""

_SELECTS: Final = frozenset(
    {
        _aten.adaptive_max_pool1d.default,
        _aten.adaptive_max_pool2d.default,
        _aten.max_pool1d.default,
        _aten.max_pool2d.default,
        _aten.max_pool3d.default,
        _aten.relu.default,
        _aten.relu_.default,
    }
)
"""Ops that select among values (or zero) at the same place of the channel axis: every grid survives them."""

_JOINS: Final = frozenset({_aten.cat.default, _aten.stack.default})
"""Ops that join values: a per-tensor grid survives when it is that of all operands."""


def grids(program: Program) -> Mapping[str, Quantizer]:
    """For each node whose value lies on a grid, by name, the quantizer that the grid comes from.

    Law: a value in the mapping is ``(q − zero_point) · scale`` of that quantizer for integers ``q`` in its range.
    """
    found = {quantizer.name: quantizer for quantizer in program.quantizers}
    for node in program.graph.nodes:
        if node.op != "call_function" or node.name in found:
            continue
        sources = [found.get(used.name) for used in node.all_input_nodes]
        if keeps_grid(node, sources) and sources[0] is not None:
            found[node.name] = sources[0]
    return MappingProxyType(found)


def keeps_grid(node: fx.Node, sources: Sequence[Quantizer | None]) -> bool:
    """Whether an operation on values of these quantizers, one for each operand, gives values of the first one's grid."""
    first = sources[0] if sources else None
    if first is None:
        return False
    whole = first.granularity == "per_tensor"
    return (
        (node.target in _MOVES and whole)
        or (node.target in _PADS and whole and _pads_with_levels(first, node))
        or (node.target in _SELECTS and _zero_is_on(first, node))
        or (node.target in _JOINS and whole and all(same_grid(first, other) for other in sources))
    )


def may_keep_grid(node: fx.Node) -> bool:
    """Whether an operation only moves, picks or joins values, so that it keeps a grid of theirs where that allows it."""
    return node.target in _MOVES | _PADS | _SELECTS | _JOINS


def _zero_is_on(quantizer: Quantizer, node: fx.Node) -> bool:
    """A rectifier needs the real number 0 among the levels; an integer zero-point in range puts it there.

    One that works in place leaves nothing on a grid that another operation might have seen before.
    """
    if node.target is _aten.relu_.default and len(node.all_input_nodes[0].users) > 1:
        return False
    return node.target not in (_aten.relu.default, _aten.relu_.default) or quantizer.op == "quant::int"


def _pads_with_levels(quantizer: Quantizer, node: fx.Node) -> bool:
    plain = node.target is _aten.constant_pad_nd.default
    mode, number = ("constant", node.args[2:3]) if plain else ([*node.args[2:3], "constant"][0], node.args[3:4])
    return mode != "constant" or (quantizer.op == "quant::int" and not any(number))


def same_grid(one: Quantizer, other: Quantizer | None) -> bool:
    """Whether two quantizers have the same levels; ``False`` where a part of a grid is computed at run time."""
    if other is None or one.scale is None or other.scale is None or one.zero_point is None or other.zero_point is None:
        return False
    same_numbers = torch.equal(one.scale, other.scale) and torch.equal(one.zero_point, other.zero_point)
    kind, other_kind = (
        (q.op == "quant::binary", q.bit_width, q.signed, q.narrow_range, q.float_format) for q in (one, other)
    )
    return same_numbers and kind == other_kind
