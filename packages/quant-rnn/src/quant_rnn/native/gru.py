"""All steps of a GRU as one operation, with a backward pass through time of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

from quant_rnn.native import steps
from quant_rnn.native.library import GRU, grids_of
from quant_rnn.native.tables import Tables, levels_of, table_of

SCALES: Final = 8
"""In front of the three gates, of what the reset gate is multiplied with, behind the gates, of the output; 0 for none."""

_FUNCTIONS: Final = (torch.sigmoid, torch.sigmoid, torch.tanh)


def _model(scales: Tensor, ranges: Sequence[float]) -> tuple[GRU, Tables]:
    grids = grids_of(scales, ranges)
    pairs = list(zip(ranges[::2], ranges[1::2], strict=True))
    rows = [
        table_of(function, levels_of(scales[gate], *pairs[gate]), scales[4 + gate], *pairs[4 + gate])
        for gate, function in enumerate(_FUNCTIONS)
    ]
    gates = Tables(*(torch.stack(parts) for parts in zip(*rows, strict=True)))
    return GRU.of(grids[:3], grids[3], grids[7], gates), gates


@torch.library.custom_op("quant_rnn::gru", mutates_args=())
def gru(
    projected: Tensor,
    weight: Tensor,
    bias: Tensor,
    hidden: Tensor,
    scales: Tensor,
    ranges: Sequence[float],
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Outputs ``(T, B, H)``, the last state ``(B, H)``, and what the backward pass needs: accumulators and products.

    Args:
        projected: the projected input of all steps, ``(T, B, 3·H)``.
        weight: from the hidden state, ``(3·H, H)``.
        bias: of its product with the rows of the new gate, ``(H,)``.
        hidden: the hidden state before the first step, ``(B, H)``.
        scales: see :data:`SCALES`.
        ranges: the smallest and the largest integer of each.
        reverse: whether to start from the end.
    """
    library = steps()
    assert library is not None
    model, tables = _model(scales, ranges)
    projected, shape = projected.contiguous(), hidden.shape
    length, size = projected.shape[0], shape[1]
    pre, product = projected.new_empty(length, shape[0], 2 * size), projected.new_empty(length, *shape)
    out, h = torch.empty_like(product), hidden.contiguous()
    of_gates, of_new = weight[: 2 * size].t(), weight[2 * size :].t()
    for t in range(length - 1, -1, -1) if reverse else range(length):
        torch.addmm(projected[t, :, : 2 * size], h, of_gates, out=pre[t])
        torch.addmm(bias, h, of_new, out=product[t])
        library.gru("forward", model, projected[t], pre[t], product[t], h, out[t], shape=shape)
        h = out[t]
    del tables  # kept until here, because the model points to them
    return out, h.clone(), pre, product


@torch.library.custom_op("quant_rnn::gru_backward", mutates_args=())
def gru_backward(
    for_out: Tensor | None,
    for_hidden: Tensor | None,
    projected: Tensor,
    weight: Tensor,
    hidden: Tensor,
    scales: Tensor,
    out: Tensor,
    pre: Tensor,
    product: Tensor,
    ranges: Sequence[float],
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of accumulators and products ``(T, B, 3·H)``, of the new gate's input, of the first state, and of scales."""
    library = steps()
    assert library is not None
    model, tables = _model(scales, ranges)
    projected, shape, length = projected.contiguous(), hidden.shape, projected.shape[0]
    for_pre, for_new = torch.empty_like(projected), torch.empty_like(product)
    sums = torch.zeros(SCALES, dtype=torch.float64)
    for_h = torch.zeros(shape, dtype=hidden.dtype) if for_hidden is None else for_hidden.contiguous().clone()
    first, ahead = hidden.contiguous(), 1 if reverse else -1
    for t in range(length) if reverse else range(length - 1, -1, -1):
        if for_out is not None:
            for_h.add_(for_out[t])
        before = out[t + ahead] if 0 <= t + ahead < length else first
        kept = (projected[t], pre[t], product[t], before)
        library.gru("backward", model, *kept, for_h, for_pre[t], for_new[t], sums, shape=shape)
        for_h.addmm_(for_pre[t], weight)
    del tables
    return for_pre, for_new, for_h, sums.to(scales.dtype)


@gru.register_fake
def _gru_fake(
    projected: Tensor,
    weight: Tensor,
    bias: Tensor,
    hidden: Tensor,
    scales: Tensor,
    ranges: Sequence[float],
    reverse: bool,
) -> tuple[Tensor, ...]:
    sequence = projected.new_empty(*projected.shape[:2], hidden.shape[1])
    pre = projected.new_empty(*projected.shape[:2], 2 * hidden.shape[1])
    return sequence, torch.empty_like(hidden), pre, torch.empty_like(sequence)


@gru_backward.register_fake
def _gru_backward_fake(
    for_out: Tensor | None,
    for_hidden: Tensor | None,
    projected: Tensor,
    weight: Tensor,
    hidden: Tensor,
    scales: Tensor,
    out: Tensor,
    pre: Tensor,
    product: Tensor,
    ranges: Sequence[float],
    reverse: bool,
) -> tuple[Tensor, ...]:
    return (
        projected.new_empty(projected.shape),
        torch.empty_like(product),
        torch.empty_like(hidden),
        torch.empty_like(scales),
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    projected, weight, _, hidden, scales, *ctx.options = inputs
    out, _, pre, product = output
    ctx.mark_non_differentiable(pre, product)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(projected, weight, hidden, scales, out, pre, product)


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
    _, _, hidden, _, out, _, _ = ctx.saved_tensors
    ranges, reverse = ctx.options
    for_pre, for_new, for_hidden, for_scales = gru_backward(*grads[:2], *ctx.saved_tensors, ranges, reverse)
    before = torch.cat([out[1:], hidden[None]] if reverse else [hidden[None], out[:-1]])
    for_weight = torch.mm(for_pre.flatten(0, 1).t(), before.flatten(0, 1))
    gates = 2 * hidden.shape[1]
    for_projected = torch.cat([for_pre[..., :gates], for_new], dim=-1)
    return for_projected, for_weight, for_pre[..., gates:].sum((0, 1)), for_hidden, for_scales, None, None


gru.register_autograd(_backward, setup_context=_keep)
