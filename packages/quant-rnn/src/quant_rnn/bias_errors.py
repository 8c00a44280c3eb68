"""What rounding the weights of a recurrent layer adds to the sums of its gates: for bias correction.

The sum of a gate is ``W_ih·x_t + b_ih + W_hh·h_{t−1} + b_hh`` at each step, and rounding the weights adds ``(Q(W_ih) −
W_ih)·x_t + (Q(W_hh) − W_hh)·h_{t−1}``. Only its sum over all steps and sequences is needed, and so only those of ``x_t`` and
``h_{t−1}``. The latter is that of all outputs, with the first states in place of the last ones: in both directions of time,
for packed sequences, and however the steps are computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from quant_nn.correction import BiasError
from quant_nn.layer import value_of
from quant_rnn.direction import Direction


def bias_errors(layer: nn.Module, direction: Direction) -> Iterator[BiasError]:
    """Of the biases of one direction that are parameters.

    The error of a gate goes to its bias of the input. Where a gate needs its two biases apart, as the new gate of a GRU does, the
    error of each product goes to the bias beside it.

    Args:
        layer: the recurrent layer, which has the parameters.
        direction: one of its directions.
    """
    for number, name in enumerate(direction.biases):
        bias = getattr(layer, name)
        if isinstance(bias, nn.Parameter) and (number == 0 or direction.hidden_bias_apart):
            yield BiasError(
                name=name,
                bias=bias,
                module=direction,
                of_call=partial(_of_call, direction, of_input=number == 0),
            )


def _of_call(direction: Direction, args: tuple[Any, ...], result: Any, *, of_input: bool) -> tuple[Tensor, int]:
    """Sums ``(G·H,)`` over the steps of one call of a direction, and their number."""
    x, first = args[0], args[1]
    out, last = result
    inputs = value_of(x).flatten(0, -2)  # (T·B, I)
    steps, read = len(inputs), _total(inputs)
    before = _total(value_of(out).flatten(0, -2)) + _total(value_of(first[0])) - _total(value_of(last[0]))
    weights, (float_input, float_hidden) = direction.weights(x), direction.float_matrices()
    from_input = (weights.input.to(read) - float_input.to(read)) @ read
    from_hidden = (weights.hidden.to(read) - float_hidden.to(read)) @ before
    if not direction.hidden_bias_apart:
        return from_input + from_hidden, steps
    others = (
        len(from_hidden) // len(direction.gates) * (len(direction.gates) - 1)
    )  # the rows of all gates but the last one
    last_gate = torch.arange(len(from_hidden), device=read.device) >= others
    if of_input:
        return from_input + from_hidden.masked_fill(last_gate, 0), steps
    return from_hidden.masked_fill(~last_gate, 0), steps


def _total(rows: Tensor) -> Tensor:
    return rows.detach().to(torch.float64).sum(0)
