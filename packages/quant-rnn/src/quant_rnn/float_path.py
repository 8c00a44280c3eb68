"""torch's own recurrent operators, for layers with quantized weights and nothing quantized inside of a step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from quant_core.ops.recurrent import lengthwise
from quant_core.proxies import QuantProxy
from quant_nn.layer import value_of
from quant_rnn.direction import Direction
from quant_rnn.weights import stack_gates

_OPERATORS: dict[str, Any] = {
    "LSTM": torch.lstm,
    "GRU": torch.gru,
    "tanh": torch.rnn_tanh,
    "relu": torch.rnn_relu,
}


def is_off(quantizers: Iterable[QuantProxy | None]) -> bool:
    """Whether none of the quantizers does anything."""
    return all(quantizer is None or not quantizer.is_quant_enabled for quantizer in quantizers)


def flat_weights(directions: Iterable[Direction]) -> list[Tensor]:
    """The weights in the order of torch's operators: the quantized matrices, and both biases as they are.

    Coupled gates become those of a plain LSTM: ``1 − sigmoid(a) = sigmoid(−a)``, so that the rows of the forget gate are those
    of the input gate with the other sign.
    """
    flat: list[Tensor] = []
    for direction in directions:
        gates = [direction.gate(name) for name in direction.gates]
        coupled = bool(getattr(direction.cell, "coupled", False))
        flat.append(stack_gates(gates, [params.input_weight.quant_weight() for params in gates], coupled=coupled))
        flat.append(stack_gates(gates, [params.hidden_weight.quant_weight() for params in gates], coupled=coupled))
        for bias in direction.float_biases():
            parts = bias.chunk(len(gates))
            flat.append(torch.cat([parts[0], -parts[0], *parts[1:]]) if coupled else bias)
        if direction.proj_weight is not None:
            flat.append(value_of(direction.proj_weight.quant_weight()))
    return flat


def run_in_float(
    kind: str,
    x: Tensor,
    state: tuple[Tensor, ...],
    flat: list[Tensor],
    *,
    sizes: Tensor | None,
    biased: bool,
    layers: int,
    dropout: float,
    training: bool,
    bidirectional: bool,
) -> tuple[Tensor, ...]:
    """``(output, *states)`` of ``(T, B, I)``, or of the joined steps ``(N, I)`` and their ``sizes``."""
    start = state if kind == "LSTM" else state[0]
    options = (flat, biased, layers, dropout, training, bidirectional)
    if sizes is None:
        operator = _OPERATORS[kind] if isinstance(x.shape[0], int) else lengthwise(kind)
        result: tuple[Tensor, ...] = operator(x, start, *options, False)
    else:
        result = _OPERATORS[kind](x, sizes, start, *options)
    return result
