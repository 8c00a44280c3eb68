"""Pairs of layers between which channels can be scaled, as the captured program has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import fx, nn
from torch.nn.utils import parametrize

from quant_core.export import Program
from quant_core.export.products import CONVOLUTIONS, TRANSPOSED

_aten = torch.ops.aten
_LAYERS: Final = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
_PRODUCTS: Final = (*CONVOLUTIONS, *TRANSPOSED, _aten.linear.default)
_POINTWISE: Final = (
    _aten.relu.default,
    _aten.leaky_relu.default,
    _aten.dropout.default,
    _aten.clone.default,
    _aten.contiguous.default,
)
_POOLS: Final = (
    _aten.max_pool1d.default,
    _aten.max_pool2d.default,
    _aten.max_pool3d.default,
    _aten.avg_pool1d.default,
    _aten.avg_pool2d.default,
    _aten.avg_pool3d.default,
    _aten.adaptive_avg_pool1d.default,
    _aten.adaptive_avg_pool2d.default,
    _aten.adaptive_max_pool1d.default,
    _aten.adaptive_max_pool2d.default,
)
"""As those before, ``f(s·x) = s·f(x)`` for every positive ``s``; along the axes of space."""
_FLATTENING: Final = (_aten.flatten.using_ints, _aten.view.default, _aten.reshape.default)
_QUANTIZER: Final = torch.ops.quant.int.default


@dataclass(frozen=True, kw_only=True)
class Chain:
    """A layer whose output reaches one other layer only, channel by channel.

    Attributes:
        first: the path of the layer.
        second: the path of the one that it reaches.
        repeats: how many inputs of the second there are for each channel of the first: more than 1 behind a flattening.
        quantizers: the paths of the quantizers between the two.
    """

    first: str
    second: str
    repeats: int
    quantizers: tuple[str, ...]


def chains(model: nn.Module, program: Program) -> Iterator[Chain]:
    """All pairs of layers, in the order of the program; layers that are called twice are in none."""
    calls = Counter(_path(program, node) for node in program.graph.nodes if _is_product(node))
    for node in program.graph.nodes:
        if _is_product(node):
            found = _follow(program, node)
            if found is not None and all(
                calls[path] == 1 and _fits(model, path, first=path == found.first)
                for path in (found.first, found.second)
            ):
                yield found


def _follow(program: Program, start: fx.Node) -> Chain | None:
    """From a layer along the only way that its output goes, to the next layer."""
    spatial = start.target is not _aten.linear.default  # channels are on axis 1, and on the last one otherwise
    quantizers: list[str] = []
    repeats, node = 1, start
    while len(node.users) == 1:
        (user,) = node.users
        if user.op != "call_function" or user.args[0] is not node:
            return None
        if _is_product(user):
            if spatial == (user.target is _aten.linear.default):
                return None
            first, second = _path(program, start), _path(program, user)
            return Chain(first=first, second=second, repeats=repeats, quantizers=tuple(quantizers))
        if user.target is _QUANTIZER:
            quantizers.append(_path(program, user))
        elif user.target in _FLATTENING and spatial:
            before, after = node.meta["val"].shape, user.meta["val"].shape
            if len(after) != 2 or after[0] != before[0]:
                return None
            spatial, repeats = False, after[1] // before[1]
        elif user.target not in _POINTWISE and not (user.target in _POOLS and spatial):
            return None
        node = user
    return None


def _is_product(node: fx.Node) -> bool:
    return node.op == "call_function" and node.target in _PRODUCTS


def _path(program: Program, node: fx.Node) -> str:
    return program.where(node).path


def _fits(model: nn.Module, path: str, *, first: bool) -> bool:
    """Whether the weight is a parameter whose channels are independent of each other."""
    layer: Any = model.get_submodule(path)
    if not isinstance(layer, _LAYERS) or parametrize.is_parametrized(layer):
        return False
    if first and layer.bias is not None and "bias" not in layer._parameters:
        return False
    return "weight" in layer._parameters
