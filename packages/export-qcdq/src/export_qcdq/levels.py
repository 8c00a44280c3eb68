"""The levels of quantizers that ``QuantizeLinear`` cannot say, as whole numbers that float operators give."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from export_qcdq.grid import kind_of
from export_qcdq.naming import literal, part
from export_qcdq.ops import LEVELS, SIGN, TERNARY
from quant_core.export import Program, ProgramBuilder, Quantizer
from quant_core.export.ranges import bounds

Call = tuple[Any, tuple[Any, ...], dict[str, Any]]
"""An op with its arguments."""


def levels(
    builder: ProgramBuilder, program: Program, node: fx.Node, quantizer: Quantizer, x: fx.Node, *, exact_ties: bool
) -> Call | None:
    """The call that gives the levels of an activation quantizer; ``None`` where ``QuantizeLinear`` gives them.

    Args:
        builder: where constants are added.
        program: the old program.
        node: the node of the quantizer in it.
        quantizer: the same.
        x: the new node that it reads.
        exact_ties: whether a zero-point is added before rounding, and not after it as ``QuantizeLinear`` does.
    """
    where = quantizer.where
    if quantizer.op == "quant::binary":
        return SIGN, (x,), {}
    assert quantizer.scale is not None  # constant, as the check has found
    if quantizer.op == "quant::ternary":
        factor: Any = node.kwargs["threshold"]
        threshold = (float(factor) * quantizer.scale.detach()).to(torch.float32)
        return TERNARY, (x, builder.constant(part(where, "threshold"), threshold)), {}
    zero_point: Any = quantizer.zero_point
    moved = bool(torch.any(zero_point != 0))
    scale: Any = quantizer.scale.detach().to(torch.float32)
    ratio = None
    if quantizer.op == "quant::trunc":
        scale = program.constant(node.args[1])
        ratio = torch.exp2(-torch.round(torch.log2(quantizer.scale.detach() / scale))).to(torch.float32)
    elif quantizer.rounding_mode == "ROUND" and not (moved and exact_ties) and not _part_of_16(quantizer):
        return None
    word = "scale" if scale.dim() == 0 and ratio is None else "divisor"
    operands = (
        x,
        builder.constant(part(where, word), scale.to(torch.float32)),
        builder.constant(part(where, "offset"), zero_point.detach().to(torch.float32)) if moved else None,
        None if ratio is None else builder.constant(part(where, "factor"), ratio),
        *(literal(builder, torch.tensor(float(bound))) for bound in bounds(quantizer)),
    )
    return LEVELS, operands, {"mode": quantizer.rounding_mode}


def _part_of_16(quantizer: Quantizer) -> bool:
    """Whether integers of 16 bits would have to be clipped, which runtimes do not do."""
    kind = kind_of(quantizer)
    limits = torch.iinfo(kind)
    return limits.bits == 16 and bounds(quantizer) != (limits.min, limits.max)
