"""All steps of a plain recurrent layer as one operation, with a backward pass through time of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from quant_rnn.native import steps
from quant_rnn.native.library import Grid, grids_of
from quant_rnn.native.tables import Tables, levels_of, table_of

_FUNCTIONS = {"tanh": torch.tanh, "relu": torch.relu}


def _tables(scales: Tensor, ranges: Sequence[float], nonlinearity: str) -> tuple[Grid, Tables]:
    levels = levels_of(scales[0], *ranges[:2])
    return grids_of(scales, ranges)[0], table_of(_FUNCTIONS[nonlinearity], levels, scales[1], *ranges[2:])


@torch.library.custom_op("quant_rnn::rnn", mutates_args=())
def rnn(
    projected: Tensor,
    weight: Tensor,
    hidden: Tensor,
    scales: Tensor,
    ranges: Sequence[float],
    nonlinearity: str,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs ``(T, B, H)``, the last state ``(B, H)``, and the accumulators, which the backward pass needs.

    Args:
        projected: the projected input of all steps, ``(T, B, H)``.
        weight: from the hidden state, ``(H, H)``.
        hidden: the hidden state before the first step, ``(B, H)``.
        scales: in front of the function, and of the output; 0 for an output that is not quantized.
        ranges: the smallest and the largest integer of each.
        nonlinearity: ``"tanh"`` or ``"relu"``.
        reverse: whether to start from the end.
    """
    library = steps()
    assert library is not None
    grid, tables = _tables(scales, ranges, nonlinearity)
    length = projected.shape[0]
    pre, out = (torch.empty(projected.shape, dtype=projected.dtype) for _ in range(2))
    transposed, h = weight.t(), hidden
    inputs, accumulators, outputs = (part.unbind(0) for part in (projected, pre, out))
    for t in range(length - 1, -1, -1) if reverse else range(length):
        torch.addmm(inputs[t], h, transposed, out=accumulators[t])
        library.rnn_forward(tables.value, grid, accumulators[t], outputs[t])
        h = outputs[t]
    return out, h.clone(), pre


@torch.library.custom_op("quant_rnn::rnn_backward", mutates_args=())
def rnn_backward(
    for_out: Tensor | None,
    for_hidden: Tensor | None,
    weight: Tensor,
    scales: Tensor,
    pre: Tensor,
    ranges: Sequence[float],
    nonlinearity: str,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of the projected input, of the state before the first step, and of the scales."""
    library = steps()
    assert library is not None
    grid, tables = _tables(scales, ranges, nonlinearity)
    length, *shape = pre.shape
    for_pre, sums = torch.empty_like(pre), torch.zeros(2, dtype=torch.float64)
    given = None if for_out is None else for_out.contiguous().unbind(0)
    for_h = torch.zeros(shape, dtype=pre.dtype) if for_hidden is None else for_hidden.contiguous().clone()
    accumulators, gradients = pre.unbind(0), for_pre.unbind(0)
    for t in range(length) if reverse else range(length - 1, -1, -1):
        if given is not None:
            for_h.add_(given[t])
        library.rnn_backward(tables, grid, accumulators[t], for_h, gradients[t], sums)
        torch.mm(gradients[t], weight, out=for_h)
    return for_pre, for_h, sums.to(scales.dtype)


@rnn.register_fake
def _rnn_fake(
    projected: Tensor,
    weight: Tensor,
    hidden: Tensor,
    scales: Tensor,
    ranges: Sequence[float],
    nonlinearity: str,
    reverse: bool,
) -> tuple[Tensor, ...]:
    out = projected.new_empty(projected.shape)
    return out, hidden.new_empty(hidden.shape), torch.empty_like(out)


@rnn_backward.register_fake
def _rnn_backward_fake(
    for_out: Tensor | None,
    for_hidden: Tensor | None,
    weight: Tensor,
    scales: Tensor,
    pre: Tensor,
    ranges: Sequence[float],
    nonlinearity: str,
    reverse: bool,
) -> tuple[Tensor, ...]:
    return torch.empty_like(pre), pre.new_empty(pre.shape[1:]), torch.empty_like(scales)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, weight, hidden, scales, *ctx.options = inputs
    out, _, pre = output
    ctx.mark_non_differentiable(pre)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(weight, hidden, scales, out, pre)


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
    weight, hidden, scales, out, pre = ctx.saved_tensors
    ranges, nonlinearity, reverse = ctx.options
    for_pre, for_hidden, for_scales = rnn_backward(*grads[:2], weight, scales, pre, ranges, nonlinearity, reverse)
    before = torch.cat([out[1:], hidden[None]] if reverse else [hidden[None], out[:-1]])
    for_weight = torch.mm(for_pre.flatten(0, 1).t(), before.flatten(0, 1))
    return for_pre, for_weight, for_hidden, for_scales, None, None, None


rnn.register_autograd(_backward, setup_context=_keep)
