"""All steps of an LSTM as one operation, with a backward pass through time of its own.

It keeps the accumulators and the cell states, as torch's own operator does, and nothing for its quantizers: what a quantizer
gave is computed again from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from quant_rnn.native import steps
from quant_rnn.native.library import LSTM, Grid, grids_of
from quant_rnn.native.tables import Tables, levels_of, table_of

SCALES = 11
"""In front of the four gates, behind them, of the cell state, of its tanh, and of the output; 0 for what is not quantized."""

_FUNCTIONS = (torch.sigmoid, torch.sigmoid, torch.tanh, torch.sigmoid)
_OFF = Grid(0.0, 0.0, 0.0)


def _model(scales: Tensor, ranges: Sequence[float], coupled: bool) -> tuple[LSTM, list[Tables]]:
    grids = grids_of(scales, ranges)
    pairs = list(zip(ranges[::2], ranges[1::2], strict=True))
    rows = [
        table_of(_FUNCTIONS[gate], levels_of(scales[gate], *pairs[gate]), scales[4 + gate], *pairs[4 + gate])
        for gate in range(4)
    ]
    gates = Tables(*(torch.stack(parts) for parts in zip(*rows, strict=True)))
    states = table_of(torch.tanh, levels_of(scales[8], *pairs[8]), scales[9], *pairs[9])
    model = LSTM.of(grids[:4], grids[4], grids[8], grids[10], gates, states, coupled=coupled)
    return model, [gates, states]


@torch.library.custom_op("quant_rnn::lstm", mutates_args=())
def lstm(
    projected: Tensor,
    weight: Tensor,
    hidden: Tensor,
    cell: Tensor,
    scales: Tensor,
    ranges: Sequence[float],
    coupled: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Outputs ``(T, B, H)``, last states ``(B, H)`` each, and what the backward pass needs: accumulators and cell states.

    Args:
        projected: the projected input of all steps, ``(T, B, G·H)``.
        weight: from the hidden state, ``(G·H, H)``.
        hidden: the hidden state before the first step, ``(B, H)``.
        cell: the cell state before it.
        scales: see :data:`SCALES`.
        ranges: the smallest and the largest integer of each.
        coupled: whether the forget gate is one minus the input gate.
        reverse: whether to start from the end.
    """
    library = steps()
    assert library is not None
    model, tables = _model(scales, ranges, coupled)
    length, batch, size = *projected.shape[:2], hidden.shape[1]
    pre = torch.empty(projected.shape, dtype=projected.dtype)
    cells, out = projected.new_empty(length, batch, size), projected.new_empty(length, batch, size)
    transposed, h, c = weight.t(), hidden, cell.contiguous()
    inputs, accumulators, states, outputs = (part.unbind(0) for part in (projected, pre, cells, out))
    for t in range(length - 1, -1, -1) if reverse else range(length):
        torch.addmm(inputs[t], h, transposed, out=accumulators[t])
        library.lstm_forward(model, accumulators[t], c, states[t], outputs[t])
        h, c = outputs[t], states[t]
    del tables  # kept until here, because the model points to them
    return out, h.clone(), c.clone(), pre, cells


@torch.library.custom_op("quant_rnn::lstm_backward", mutates_args=())
def lstm_backward(
    for_out: Tensor | None,
    for_hidden: Tensor | None,
    for_cell: Tensor | None,
    weight: Tensor,
    cell: Tensor,
    scales: Tensor,
    pre: Tensor,
    cells: Tensor,
    ranges: Sequence[float],
    coupled: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of the projected input, of the two states before the first step, and of the scales."""
    library = steps()
    assert library is not None
    model, tables = _model(scales, ranges, coupled)
    length = pre.shape[0]
    for_pre, sums = torch.empty_like(pre), torch.zeros(SCALES, dtype=torch.float64)
    given = None if for_out is None else for_out.contiguous().unbind(0)
    shape = cell.shape
    for_h = torch.zeros(shape, dtype=cell.dtype) if for_hidden is None else for_hidden.contiguous().clone()
    for_c = torch.zeros(shape, dtype=cell.dtype) if for_cell is None else for_cell.contiguous().clone()
    first, accumulators, states, gradients = cell.contiguous(), pre.unbind(0), cells.unbind(0), for_pre.unbind(0)
    order = range(length) if reverse else range(length - 1, -1, -1)
    ahead = 1 if reverse else -1
    for t in order:
        if given is not None:
            for_h.add_(given[t])
        before = states[t + ahead] if 0 <= t + ahead < length else first
        library.lstm_backward(model, accumulators[t], before, for_h, for_c, gradients[t], sums)
        torch.mm(gradients[t], weight, out=for_h)
    del tables
    return for_pre, for_h, for_c, sums.to(scales.dtype)


@lstm.register_fake
def _lstm_fake(
    projected: Tensor,
    weight: Tensor,
    hidden: Tensor,
    cell: Tensor,
    scales: Tensor,
    ranges: Sequence[float],
    coupled: bool,
    reverse: bool,
) -> tuple[Tensor, ...]:
    sequence = projected.new_empty(*projected.shape[:2], hidden.shape[1])
    pre = projected.new_empty(projected.shape)
    return sequence, torch.empty_like(hidden), torch.empty_like(cell), pre, torch.empty_like(sequence)


@lstm_backward.register_fake
def _lstm_backward_fake(
    for_out: Tensor | None,
    for_hidden: Tensor | None,
    for_cell: Tensor | None,
    weight: Tensor,
    cell: Tensor,
    scales: Tensor,
    pre: Tensor,
    cells: Tensor,
    ranges: Sequence[float],
    coupled: bool,
    reverse: bool,
) -> tuple[Tensor, ...]:
    state = cell.new_empty(cell.shape)
    return torch.empty_like(pre), state, torch.empty_like(state), torch.empty_like(scales)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, weight, hidden, cell, scales, *ctx.options = inputs
    out, _, _, pre, cells = output
    ctx.mark_non_differentiable(pre, cells)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(weight, hidden, cell, scales, out, pre, cells)


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
    weight, hidden, cell, scales, out, pre, cells = ctx.saved_tensors
    ranges, coupled, reverse = ctx.options
    for_pre, for_hidden, for_cell, for_scales = lstm_backward(
        *grads[:3], weight, cell, scales, pre, cells, ranges, coupled, reverse
    )
    before = torch.cat([out[1:], hidden[None]] if reverse else [hidden[None], out[:-1]])
    for_weight = torch.mm(for_pre.flatten(0, 1).t(), before.flatten(0, 1))
    return for_pre, for_weight, for_hidden, for_cell, for_scales, None, None, None


lstm.register_autograd(_backward, setup_context=_keep)
