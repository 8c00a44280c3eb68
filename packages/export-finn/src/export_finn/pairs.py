"""Sums and products of two values that are integers so far."""

from __future__ import annotations

import itertools
from typing import Final

import torch
from torch import fx

from export_finn import datatypes
from export_finn.integers import Integers
from export_finn.workbench import Workbench

_aten = torch.ops.aten
_MATRICES: Final = (_aten.matmul.default, _aten.bmm.default)
_LARGEST: Final = 2**31 - 1
"""What the widest datatype of FINN holds."""


def lower_pair(work: Workbench, node: fx.Node) -> bool:
    """Put a sum or a product of two values in the new program, of integers; ``False`` where it cannot be one."""
    if node.kwargs or len(node.args) != 2:
        return False
    held = [work.integers.get(used) if isinstance(used, fx.Node) else None for used in node.args]
    one, other = held
    if one is None or other is None or not (one.per_tensor and other.per_tensor):
        return False
    if node.target is _aten.add.Tensor and one.on_the_grid_of(other):
        low, high, scale, name = one.low + other.low, one.high + other.high, one.scale, one.name
    elif node.target is _aten.mul.Tensor or node.target in _MATRICES:
        products = [a * b for a, b in itertools.product((one.low, one.high), (other.low, other.high))]
        count = int(one.node.meta["val"].shape[-1]) if node.target in _MATRICES else 1
        low, high = count * min(products), count * max(products)
        scale, name = one.scale.reshape(()) * other.scale.reshape(()), work.program.where(node).part("scale")
    else:
        return False
    if max(-low, high) > _LARGEST:
        return False
    kind = datatypes.of_range(low, high)
    new = work.builder.call(node.target, (one.node, other.node), like=node, name=f"{node.name}_integers")
    work.hold(node, Integers(node=new, scale=scale, name=name, low=low, high=high, datatype=kind))
    return True
