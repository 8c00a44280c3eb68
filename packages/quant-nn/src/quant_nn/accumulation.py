"""The grid on which a layer adds up its products, and how many bits never overflow.

With an input of integers ``q_x`` and a weight of integers ``q_w`` the sum ``Σ (q_x − z_x)(q_w − z_w)`` is an integer on the grid
of scale ``s_x · s_w``. Its bits are bounded twice: from shapes and bit widths alone, for any weight
(:func:`quant_core.tensor.accumulator_bit_width`), and from the integers of the weight, by the largest and smallest sum that any
input of the given range can reach.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from quant_core.errors import InputError
from quant_core.tensor import QuantTensor
from quant_core.tensor.grids import bits, offsets


@dataclass(frozen=True, kw_only=True)
class Accumulator:
    """What the accumulator of a layer must hold.

    Attributes:
        scale: ``s_x · s_w``, 0-dim, or ``(O,)`` for a weight quantized per channel.
        low: the smallest integer that any input reaches, in any channel; 0-dim float64.
        high: the largest one.
        signed: whether it must hold negative integers.
        bit_width: the smallest number of bits that holds both; 0-dim.
    """

    scale: Tensor
    low: Tensor
    high: Tensor
    signed: bool

    @property
    def bit_width(self) -> Tensor:
        """``⌈log2(high + 1)⌉`` unsigned, ``1 + max(⌈log2(high + 1)⌉, ⌈log2(−low)⌉)`` signed."""
        return bits(self.low, self.high, signed=self.signed)


def accumulator_of(
    x: QuantTensor, rows: Tensor, bias: Tensor | None, scale: Tensor, *, weight_signed: bool
) -> Accumulator:
    """The accumulator of sums of ``rows`` of integers with any input on the grid of ``x``.

    Args:
        x: any tensor on the grid of the input; its values are not read.
        rows: the integers ``q_w − z_w``, ``(n · channels, terms)``: all factors of one sum, for ``n`` places of each channel.
        bias: the integers of the bias, ``(channels,)``.
        scale: the scale of the products.
        weight_signed: whether the weight may be negative.
    """
    low, high = offsets(x)
    positive, negative = rows.clamp(min=0).sum(1), rows.clamp(max=0).sum(1)
    smallest, largest = positive * low + negative * high, positive * high + negative * low
    if bias is not None:
        bias = bias.repeat(len(rows) // len(bias))
        smallest, largest = smallest + bias, largest + bias
    return Accumulator(
        scale=scale,
        low=torch.clamp(smallest.amin(), max=0),
        high=torch.clamp(largest.amax(), min=0),
        signed=x.signed or not x.symmetric or weight_signed or bias is not None,
    )


def accumulator_scale(x: Tensor | QuantTensor, weight: Tensor | QuantTensor) -> Tensor | None:
    """``s_x · s_w``: 0-dim, or ``(O,)``; ``None`` where either is not quantized per tensor or channel, or beside its grid."""
    if not (isinstance(x, QuantTensor) and isinstance(weight, QuantTensor)):
        return None
    if x.scale.numel() > 1 or not (x.symmetric or x.zero_on_grid) or _in_groups(weight) or _minifloat(x, weight):
        return None
    return x.scale.reshape(()) * weight.scale.reshape(() if weight.scale.numel() == 1 else (-1,))


def no_scale(
    what: str, where: str, x: Tensor | QuantTensor, weight: Tensor | QuantTensor, *, prefix: str = ""
) -> InputError:
    """Why the accumulator has no scale, and what can be done; ``prefix`` stands before the options of the layer."""
    if not isinstance(weight, QuantTensor):
        reason, fix = "the weight is not quantized", f"Set {prefix}weight_quant, and do not disable it."
    elif not isinstance(x, QuantTensor):
        reason = "the input is a plain tensor"
        fix = (
            f"Set {prefix}input_quant on this layer, or return_quant_tensor=True on the layer before it; a sum of two scales "
            "must be quantized again."
        )
    elif _minifloat(x, weight):
        reason = "minifloats are not equally far apart"
        fix = (
            f"Leave the bias and the output in float, set {prefix}output_quant, or use integer quantizers for input and "
            "weight."
        )
    elif x.scale.numel() > 1:
        reason = "the input has several scales"
        fix = (
            "Quantize the input per tensor, and not per channel. A recurrent layer gives each step a scale while it collects "
            "statistics: calibrate the model first."
        )
    elif _in_groups(weight):
        reason, fix = "the weight has several scales for one output channel", f"Leave {prefix}weight_group_size out."
    else:
        reason = "a float bias has shifted the input beside its grid"
        fix = f"Set bias_quant on the layer before it, or {prefix}input_quant on this one."
    return InputError(what, where=where, why=f"its scale is input scale · weight scale, and {reason}", fix=fix)


def _minifloat(*operands: QuantTensor) -> bool:
    return any(operand.float_format is not None for operand in operands)


def _in_groups(weight: QuantTensor) -> bool:
    """Whether its scale varies along more than one axis, so that the products of one sum have several."""
    return sum(size > 1 for size in weight.scale.shape) > 1
