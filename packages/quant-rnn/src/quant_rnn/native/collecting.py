"""All steps of an LSTM as one operation while its quantizers collect statistics.

The threshold of a quantizer that collects is the largest magnitude of what it is given, at each call anew, with its gradient. Of
several elements of that magnitude the first one gets it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

from quant_rnn.native import steps
from quant_rnn.native.library import Call

CALLS: Final = 13
"""Calls of quantizers in a step: in front of the four gates, behind them, both products, their sum, its tanh, the output."""
_FUNCTIONS: Final = (torch.sigmoid_, torch.sigmoid_, torch.tanh_, torch.sigmoid_)
_WORK, _BACKWARD_WORK = 7, 12
_FIELDS = 5


def _calls(fields: Sequence[float]) -> ctypes.Array[Call]:
    rows = [fields[start : start + _FIELDS] for start in range(0, len(fields), _FIELDS)]
    return (Call * CALLS)(*(Call(*row[:4], int(row[4])) for row in rows))


@torch.library.custom_op("quant_rnn::lstm_collecting", mutates_args=())
def lstm_collecting(
    projected: Tensor,
    weight: Tensor,
    hidden: Tensor,
    cell: Tensor,
    scales: Tensor,
    fields: Sequence[float],
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Outputs ``(T, B, H)``, last states ``(B, H)`` each, the scale of each call ``(T, 13)``, its statistic ``(T, 13)``, and what
    the backward pass needs.

    Args:
        projected: the projected input of all steps, ``(T, B, 4·H)``.
        weight: from the hidden state, ``(4·H, H)``.
        hidden: the hidden state before the first step, ``(B, H)``.
        cell: the cell state before it.
        scales: of each call that does not collect, ``(13,)``; 0 for none.
        fields: for each call the smallest and the largest integer, what a threshold is divided by, the smallest threshold, and
            whether it collects.
        reverse: whether to start from the end.
    """
    library = steps()
    assert library is not None
    calls = _calls(fields)
    length, batch, size = *projected.shape[:2], hidden.shape[1]
    shape = (batch, size)
    pre, acts = torch.empty_like(projected), projected.new_empty(length, 4, batch, size)
    cells, tanhs, out = (projected.new_empty(length, batch, size) for _ in range(3))
    used, found = scales.repeat(length, 1), scales.new_zeros(length, CALLS)
    at, work = torch.zeros(length, CALLS, dtype=torch.int64), projected.new_empty(_WORK, batch, size)
    transposed, h, c = weight.t(), hidden, cell.contiguous()
    for t in range(length - 1, -1, -1) if reverse else range(length):
        kept = (used[t], found[t], at[t])
        torch.addmm(projected[t], h, transposed, out=pre[t])
        library.lstm_collect("gates", calls, pre[t], acts[t], *kept, shape=shape)
        for gate, function in enumerate(
            _FUNCTIONS
        ):  # one by one, because the last elements of a call may be rounded otherwise
            function(acts[t, gate])
        library.lstm_collect("cell", calls, acts[t], c, cells[t], work, *kept, shape=shape)
        torch.tanh(cells[t], out=tanhs[t])
        library.lstm_collect("output", calls, tanhs[t], work, out[t], *kept, shape=shape)
        h, c = out[t], cells[t]
    return out, h.clone(), c.clone(), used, found, at, pre, acts, cells, tanhs


@torch.library.custom_op("quant_rnn::lstm_collecting_backward", mutates_args=())
def lstm_collecting_backward(
    for_out: Tensor | None,
    for_hidden: Tensor | None,
    for_cell: Tensor | None,
    for_scales: Tensor | None,
    weight: Tensor,
    cell: Tensor,
    used: Tensor,
    at: Tensor,
    pre: Tensor,
    acts: Tensor,
    cells: Tensor,
    tanhs: Tensor,
    fields: Sequence[float],
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of the projected input, of the two states before the first step, and of the scales that are given."""
    library = steps()
    assert library is not None
    calls = _calls(fields)
    length, shape = pre.shape[0], cell.shape
    for_pre, sums = torch.empty_like(pre), torch.zeros(CALLS, dtype=torch.float64)
    extra = torch.zeros(used.shape, dtype=torch.float64) if for_scales is None else for_scales.double().contiguous()
    for_h = torch.zeros(shape, dtype=cell.dtype) if for_hidden is None else for_hidden.contiguous().clone()
    for_c = torch.zeros(shape, dtype=cell.dtype) if for_cell is None else for_cell.contiguous().clone()
    work, first = cell.new_empty(_BACKWARD_WORK, *shape), cell.contiguous()
    ahead = 1 if reverse else -1
    for t in range(length) if reverse else range(length - 1, -1, -1):
        if for_out is not None:
            for_h.add_(for_out[t])
        before = cells[t + ahead] if 0 <= t + ahead < length else first
        forward = (used[t], at[t], pre[t], acts[t], tanhs[t], before)
        library.lstm_collect("backward", calls, *forward, for_h, for_c, for_pre[t], work, sums, extra[t], shape=shape)
        torch.mm(for_pre[t], weight, out=for_h)
    return for_pre, for_h, for_c, sums.to(used.dtype)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, weight, hidden, cell, _, *ctx.options = inputs
    out, _, _, used, found, *kept = output
    ctx.mark_non_differentiable(found, *kept)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(weight, hidden, cell, out, used, *kept)


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
    weight, hidden, cell, out, *kept = ctx.saved_tensors
    fields, reverse = ctx.options
    for_pre, for_hidden, for_cell, for_scales = lstm_collecting_backward(
        *grads[:4], weight, cell, *kept, fields, reverse
    )
    before = torch.cat([out[1:], hidden[None]] if reverse else [hidden[None], out[:-1]])
    for_weight = torch.mm(for_pre.flatten(0, 1).t(), before.flatten(0, 1))
    return for_pre, for_weight, for_hidden, for_cell, for_scales, None, None


lstm_collecting.register_autograd(_backward, setup_context=_keep)
