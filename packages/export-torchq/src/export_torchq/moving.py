"""What only moves, selects or joins values: done on the quantized tensor, whose grid it keeps."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import fx

from export_torchq.levels import unsigned_levels
from export_torchq.limits import is_wrong
from export_torchq.lowering import Lowering
from quant_core.export.arguments import arguments
from quant_core.export.grid import keeps_grid, same_grid

_aten = torch.ops.aten
_IMAGE: Final = 4

MOVED: Final = frozenset(
    {
        _aten.clone.default,
        _aten.constant_pad_nd.default,
        _aten.contiguous.default,
        _aten.expand.default,
        _aten.flatten.using_ints,
        _aten.max_pool1d.default,
        _aten.max_pool2d.default,
        _aten.max_pool3d.default,
        _aten.pad.default,
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
        _aten.upsample_nearest2d.default,
        _aten.upsample_nearest2d.vec,
        _aten.upsample_nearest3d.default,
        _aten.upsample_nearest3d.vec,
        _aten.view.default,
    }
)
"""Operations that torch has for quantized tensors. On floats, others that keep a grid give values of it too."""
AVERAGED: Final = frozenset({_aten.adaptive_avg_pool2d.default, _aten.avg_pool2d.default, _aten.avg_pool3d.default})
"""Averages that torch rounds to the grid of their operand."""


def lower_move(lowering: Lowering, node: fx.Node) -> bool:
    """Lower an operation that keeps the grid of its operand."""
    used: Any = node.args[0]
    quantizer = lowering.on.get(used)
    if quantizer is None or not keeps_grid(node, [quantizer]):
        return False
    if not _has_integers(lowering, node):
        return False
    lowering.keep(node, lowering.copy(node, of=lowering.either_of), quantizer)
    return True


def _has_integers(lowering: Lowering, node: fx.Node) -> bool:
    """Whether torch has this form of an operation for quantized tensors, and computes it rightly."""
    if node.target is _aten.pad.default:
        mode = arguments(node)["mode"]
        return mode == "constant" or (mode == "reflect" and len(node.meta["val"].shape) <= _IMAGE)
    return not is_wrong(lowering.engine, node)


def lower_concatenation(lowering: Lowering, node: fx.Node) -> bool:
    """Lower ``aten.cat`` of quantized tensors: as they are on one grid, else each rounded to the grid that they come to."""
    operands: Any = node.args[0]
    made = [lowering.integer_of(operand) for operand in operands]
    if None in made:
        return False
    axis: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    landing, grids = lowering.landings.get(node.name), [lowering.on[operand] for operand in operands]
    if all(same_grid(grids[0], other) for other in grids):
        lowering.keep(node, lowering.script.call(_aten.cat, made, axis, name=node.name), grids[0])
    elif landing is not None:
        to = unsigned_levels(landing)
        joined = torch.ops.quantized.cat
        lowering.keep(node, lowering.script.call(joined, made, axis, to.scale, to.zero_point, name=node.name), landing)
    else:
        return False
    return True


def lower_average(lowering: Lowering, node: fx.Node) -> bool:
    """Lower an average that is rounded to the grid of its operand; one that is rounded to another grid stays one of floats."""
    used: Any = node.args[0]
    landing = lowering.landings.get(node.name)
    if landing is None or lowering.integer_of(used) is None or not same_grid(lowering.on[used], landing):
        return False
    if not _has_integers(lowering, node):
        return False
    lowering.keep(node, lowering.copy(node, of=lowering.either_of), landing)
    return True
