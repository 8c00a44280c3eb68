"""The parameters of a quantizer in the shapes that readers of QONNX need."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, fx

from quant_core.export import Program, Quantizer

ROUNDING_MODES: Final = {
    "ROUND": "ROUND",
    "FLOOR": "FLOOR",
    "CEIL": "CEIL",
    "TO_ZERO": "DOWN",
    "HALF_UP": "HALF_UP",
}
"""Our word for a rounding mode → that of QONNX, whose ``HALF_UP`` takes ties away from zero: ours is taken unsigned only."""


def scale_and_zero_point(quantizer: Quantizer) -> tuple[Tensor, Tensor]:
    """Scale and zero-point: 0-dim where they are one number, of the rank of the tensor otherwise.

    Those of a bias are both ``(1,)`` or both ``(C,)``, because FINN reshapes them along with it. A zero-point that is 0
    throughout is 0-dim, because FINN compares it with 0.
    """
    assert quantizer.scale is not None  # constant, as the check has found
    assert quantizer.zero_point is not None
    scale, zero_point = quantizer.scale.to(torch.float32), quantizer.zero_point.to(torch.float32)
    if quantizer.role == "bias":
        size = max(scale.numel(), zero_point.numel())
        return scale.reshape(-1).expand(size).contiguous(), zero_point.reshape(-1).expand(size).contiguous()
    if not bool(torch.any(zero_point != 0)):
        zero_point = torch.zeros(())
    rank = len(quantizer.shape)
    return _ranked(scale, rank), _ranked(zero_point, rank)


def _ranked(tensor: Tensor, rank: int) -> Tensor:
    if tensor.numel() == 1:
        return tensor.reshape(())
    return tensor.reshape((1,) * (rank - tensor.dim()) + tuple(tensor.shape))


def dequantized(quantizer: Quantizer) -> Tensor:
    """The values of a quantized weight or bias, ``(integers − zero_point) · scale`` in float32, as the program computes them."""
    if quantizer.values is not None:  # of minifloats
        return quantizer.values.to(torch.float32)
    assert quantizer.integers is not None  # a weight or a bias
    assert quantizer.scale is not None
    assert quantizer.zero_point is not None
    return ((quantizer.integers.to(quantizer.scale.dtype) - quantizer.zero_point) * quantizer.scale).to(torch.float32)


def input_grid(program: Program, node: fx.Node) -> tuple[Tensor, float]:
    """Of a ``quant::trunc``: the scale of its input, and the bits that it has when the upper ones that stay are counted."""
    scale, output_scale = (program.constant(node.args[position]) for position in (1, 3))
    bits = program.constant(node.args[4])
    assert scale is not None  # constant, as the check has found
    assert output_scale is not None
    assert bits is not None
    dropped = torch.round(torch.log2(output_scale / scale)).max()
    return scale.to(torch.float32), float(bits) + float(dropped)
