"""The quantized weights of one direction, stacked again so that all gates are one matrix product."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from quant_core.components import IntQuant
from quant_core.errors import InputError
from quant_core.proxies import QuantProxy
from quant_core.tensor import QuantTensor
from quant_nn.layer import value_of
from quant_rnn.gate_weights import GateParams, GateWeight
from quant_rnn.quantizing import MaybeQuantized, scale_of


class Weights(NamedTuple):
    """What a direction computes with during one sequence.

    Attributes:
        input: ``(G·H, I)``.
        hidden: ``(G·H, P)``.
        bias: ``(G·H,)``, added to the projected input; ``None`` without biases.
        hidden_bias: ``(H,)``, added to the product with the hidden state of the last gate, where the layer needs it apart.
        projection: ``(P, H)``, of the output; ``None`` where it is not projected.
    """

    input: Tensor
    hidden: Tensor
    bias: Tensor | None
    hidden_bias: Tensor | None
    projection: Tensor | None


def quantize_weights(
    gates: Mapping[str, GateParams],
    biases: Sequence[Sequence[Tensor]],
    projection: GateWeight | None,
    x: MaybeQuantized,
    where: str,
) -> Weights:
    """Quantize the weights of all gates, and the biases at the scale of the products that they are added to.

    Args:
        gates: the gates in their order.
        biases: for each gate its biases, ``(H,)`` each: none, one, or one for the input and one for the hidden state.
        projection: the matrix that projects the output.
        x: the input, for its scale.
        where: the layer, for errors.

    Raises:
        InputError: when a bias is to be quantized and its scale is not known, or the products lie on no grid.
    """
    input_scale = scale_of(x)
    inputs = [params.input_weight.quant_weight() for params in gates.values()]
    hidden = [params.hidden_weight.quant_weight() for params in gates.values()]
    done: list[list[Tensor]] = []
    for params, weight, parts in zip(gates.values(), inputs, biases, strict=True):
        scale = None
        if input_scale is not None and isinstance(weight, QuantTensor):
            scale = (input_scale * weight.scale).reshape(() if weight.scale.numel() == 1 else (-1,))
        if parts and _needs_scale(params.bias_quant):
            _check_grid(x, weight, where)
        done.append([part if params.bias_quant is None else value_of(params.bias_quant(part, scale)) for part in parts])
    return Weights(
        input=stack_gates(list(gates.values()), inputs),
        hidden=stack_gates(list(gates.values()), hidden),
        bias=torch.cat([parts[0] for parts in done]) if done[0] else None,
        hidden_bias=done[-1][1] if len(done[-1]) > 1 else None,
        projection=None if projection is None else value_of(projection.quant_weight()),
    )


def stack_gates(gates: Sequence[GateParams], parts: Sequence[Tensor | QuantTensor], *, coupled: bool = False) -> Tensor:
    """The quantized matrices of all gates as one, ``(G·H, features)``.

    Under ``torch.export`` it is one quantized constant with a scale for each row, and not a float one that integers went into:
    the result goes through ``quant::int`` on the grid that it lies on, which leaves it as it is.

    Args:
        gates: the gates, which know their quantizers.
        parts: what they gave.
        coupled: put the negative of the first one behind it: the forget gate of a plain LSTM.
    """
    values = [value_of(part) for part in parts]
    if coupled:
        values.insert(1, -values[0])
    stacked = values[0] if len(values) == 1 else torch.cat(values)
    found = [part for part in parts if isinstance(part, QuantTensor)]
    if not torch.compiler.is_exporting() or len(values) == 1 or len(found) < len(parts):
        return stacked
    quants = [params.hidden_weight.weight_quant for params in gates]
    if not all(quant is not None and isinstance(quant.tensor_quant, IntQuant) and quant.symmetric for quant in quants):
        return stacked
    first = found[0]
    if coupled:
        if not first.narrow_range:  # the negative of the smallest integer would not be one
            return stacked
        found.insert(1, first)
    scale = torch.cat([part.scale.expand(part.shape[0], 1) for part in found])
    captured: Tensor = torch.ops.quant.int(
        stacked,
        scale,
        torch.zeros_like(scale),
        first.bit_width,
        signed=first.signed,
        narrow_range=first.narrow_range,
        rounding_mode="ROUND",
    )
    return captured


def _needs_scale(quantizer: QuantProxy | None) -> bool:
    """Whether it quantizes at the scale of the products."""
    return quantizer is not None and quantizer.is_quant_enabled and getattr(quantizer, "requires_input_scale", True)


def _check_grid(x: MaybeQuantized, weight: MaybeQuantized, where: str) -> None:
    """The products of input and weight are equally far apart."""
    if not (isinstance(x, QuantTensor) and isinstance(weight, QuantTensor)):
        reason = "the input or the weight is not quantized"
        fix = "Set io_quant and weight_quant, or bias_quant=None to keep the bias in float."
    elif x.float_format is not None or weight.float_format is not None:
        reason = "minifloats are not equally far apart"
        fix = "Set bias_quant=None to keep the bias in float, or use integer quantizers as io_quant and weight_quant."
    else:
        return
    raise InputError(
        "the bias cannot be quantized",
        where=where,
        why=f"its scale is input scale · weight scale, and {reason}",
        fix=fix,
    )
