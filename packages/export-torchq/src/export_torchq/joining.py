"""Sums and products of two values, and tables of rows."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, fx

from export_torchq.engines import computing_with
from export_torchq.levels import SHIFT, Weight, unsigned_levels, weight_of
from export_torchq.lowering import Lowering
from export_torchq.products import relu_behind

_aten = torch.ops.aten
_quantized = torch.ops.quantized
_OPERATORS: Final = {
    _aten.add.Tensor: ("add", "add_relu"),
    _aten.mul.Tensor: ("mul", "mul_relu"),
}


def lower_pair(lowering: Lowering, node: fx.Node) -> bool:
    """Lower a sum or a product of two quantized tensors whose result is rounded."""
    one, other = node.args[:2]
    landing = lowering.landings.get(node.name)
    if landing is None or node.kwargs.get("alpha", 1) != 1:
        return False
    made = [lowering.integer_of(operand) for operand in (one, other)]
    if None in made:
        return False
    target: Any = node.target
    plain, rectified = _OPERATORS[target]
    relu, to = relu_behind(node), unsigned_levels(landing)
    operator = getattr(_quantized, plain if relu is None else rectified)
    lowering.keep(node, lowering.script.call(operator, *made, to.scale, to.zero_point, name=node.name), landing)
    if relu is not None:
        lowering.rectified.add(node)
    return True


def lower_embedding(lowering: Lowering, node: fx.Node) -> bool:
    """Lower a look-up in a table of quantized rows; what comes out is floats."""
    table: Any = node.args[0]
    quantizer = lowering.parameter(table)
    weight = None if quantizer is None else weight_of(quantizer)
    if weight is None or weight.axis not in (None, 0):
        return False
    values = lowering.value_of(table)
    with computing_with(lowering.engine):
        packed = _quantized.embedding_bag_prepack(_rows(weight, values))
    if not torch.equal(_quantized.embedding_byte(packed, torch.arange(values.shape[0])), values):
        lowering.note(
            node,
            "numbers of this table may differ by one rounding of float32: torch computes q·scale − 128·scale. With a scale "
            "that is a power of two they are equal",
        )
    name = lowering.name_of(table)
    attribute = lowering.script.attribute(f"{name.rpartition('.')[0] or name}_packed", packed)
    indices = lowering.float_of(node.args[1])
    lowering.floats[node] = lowering.script.call(_quantized.embedding_byte, attribute, indices, name=node.name)
    return True


def _rows(weight: Weight, values: Tensor) -> Tensor:
    """A table as torch takes it: unsigned integers, scale and zero-point of each row as floats."""
    count = weight.integers.shape[0]
    scale = weight.scale.expand(count).contiguous()
    zero_point = (weight.zero_point + SHIFT).expand(count).to(torch.float32).contiguous()
    rows: Tensor = torch.quantize_per_channel(values, scale, zero_point, 0, torch.quint8)
    return rows
