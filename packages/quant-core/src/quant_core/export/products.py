"""Sums of products with a constant operand: what targets of integers compute with accumulators."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import fx

_aten = torch.ops.aten

CONVOLUTIONS: Final = (
    _aten.conv1d.default,
    _aten.conv2d.default,
    _aten.conv3d.default,
    _aten.conv1d.padding,
    _aten.conv2d.padding,
    _aten.conv3d.padding,
)
TRANSPOSED: Final = (_aten.conv_transpose1d.default, _aten.conv_transpose2d.input, _aten.conv_transpose3d.input)
_BIASED: Final = (*CONVOLUTIONS, *TRANSPOSED, _aten.linear.default)
_PLAIN: Final = (_aten.matmul.default, _aten.mm.default)


@dataclass(frozen=True, kw_only=True)
class Product:
    """``x ∗ w + b`` in a program.

    Attributes:
        node: the operation.
        x: its data.
        weight: its weight, a constant or the result of a quantizer of one.
        bias: its bias, ``None`` where it has none.
        output_axis: the axis of the weight that holds the output channels.
    """

    node: fx.Node
    x: fx.Node
    weight: fx.Node
    bias: fx.Node | None
    output_axis: int

    @property
    def is_convolution(self) -> bool:
        """Whether channels lie on axis 1 of the result; on the last axis otherwise."""
        return self.node.target in CONVOLUTIONS or self.node.target in TRANSPOSED


def product(node: fx.Node, constants: frozenset[str]) -> Product | None:
    """A node as a product with a constant weight; ``None`` for everything else.

    Args:
        node: any node of a program.
        constants: the names of the nodes that do not depend on the inputs.
    """
    if node.op != "call_function" or (node.target not in _BIASED and node.target not in _PLAIN):
        return None
    x, weight = node.args[:2]
    if not isinstance(x, fx.Node) or not isinstance(weight, fx.Node) or weight.name not in constants:
        return None
    given = node.args[2] if len(node.args) > 2 and node.target in _BIASED else node.kwargs.get("bias")
    return Product(
        node=node,
        x=x,
        weight=weight,
        bias=given if isinstance(given, fx.Node) else None,
        output_axis=1 if node.target in TRANSPOSED or node.target in _PLAIN else 0,
    )


def products(graph: fx.Graph, constants: frozenset[str]) -> Iterator[Product]:
    """All products of a program, in order."""
    for node in graph.nodes:
        found = product(node, constants)
        if found is not None:
            yield found
