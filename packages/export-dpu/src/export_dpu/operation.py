"""What a file is made of: operations on values that are 8-bit integers times a power of two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from quant_core.export import Quantizer
from quant_core.export.arguments import each


@dataclass(frozen=True, kw_only=True)
class Value:
    """A value of the program, in the file.

    Attributes:
        name: its name in the file.
        position: ``−log2(scale)``; ``None`` where it is not known, or the value is real.
        real: whether it is an input of the model that no quantizer has rounded yet.
        positive: whether it cannot be below zero.
    """

    name: str
    position: int | None
    real: bool = False
    positive: bool = False


@dataclass(frozen=True, kw_only=True)
class Operation:
    """A node of the file.

    Attributes:
        op_type: the operator.
        name: the name of the node.
        inputs: the names of its operands.
        output: the name of its result.
        shape: the shape of its result.
        attributes: those that say what it computes.
        quantization: bit widths and positions by kind, such as ``{"in": (8, 5), "out": (8, 4)}``; empty for standard operators,
            which move values only.
    """

    op_type: str
    name: str
    inputs: tuple[str, ...]
    output: str
    shape: tuple[int, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    quantization: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def position_of(quantizer: Quantizer) -> int | None:
    """``−log2(scale)``; ``None`` for a quantizer whose scale is not one power of two.

    >>> import quant_nn as qnn
    >>> from quant_core.export import capture
    >>> from quant_core.quant import Uint8ActPerTensorFixedPointMaxInit
    >>> act = qnn.QuantReLU(Uint8ActPerTensorFixedPointMaxInit, max_val=6.0)  # up to 8, in 256 steps
    >>> position_of(capture(act, (torch.zeros(2),)).quantizers[0])
    5
    """
    scale = quantizer.scale
    if scale is None or scale.numel() != 1:
        return None
    mantissa, exponent = torch.frexp(scale.detach().reshape(()).to(torch.float64))
    return 1 - int(exponent) if float(mantissa) == 0.5 else None


def pair(given: Any) -> tuple[int, int]:
    """Height and width, from one number for both or one for each.

    >>> pair(3), pair([2]), pair([1, 2])
    ((3, 3), (2, 2), (1, 2))
    """
    height, width = each(given, 2)
    return int(height), int(width)


def shape_of(node: fx.Node) -> tuple[Any, ...]:
    """The shape of the result of a node; a size is no ``int`` along an axis of varying size."""
    value = node.meta["val"]
    assert isinstance(value, Tensor)
    return tuple(value.shape)
