"""All steps of a recurrent layer as one operation, with a backward pass through time of its own.

What is kept for the backward pass is the matrix products, the states, and what comes out of functions that are no tables; the
rest is computed again from them.

A quantizer that collects has as its threshold the largest magnitude of what it is given, at each call anew, with its gradient. Of
several elements of that magnitude the first one gets it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from quant_core.errors import ConfigurationError
from quant_core.ops.second_order import is_recorded
from quant_rnn.native.by_torch import Factor
from quant_rnn.native.layout import FIELDS, layout_of
from quant_rnn.native.machine import Numbers, run
from quant_rnn.native.memory import Buffer, starts_of
from quant_rnn.native.operands import (
    buffers_of,
    calls_of,
    factor_of,
    factors_of,
    input_width,
    pointers_of,
    ranges_of,
    rows_of_scales,
)
from quant_rnn.native.tables import tables_of


@torch.library.custom_op("quant_rnn::steps", mutates_args=())
def all_steps(
    projected: Tensor,
    matrices: Sequence[Tensor],
    biases: Sequence[Tensor],
    states: Sequence[Tensor],
    scales: Tensor,
    code: Sequence[int],
    fields: Sequence[float],
    reverse: bool,
) -> tuple[Tensor, list[Tensor], Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Outputs ``(T, B, P)``, last states ``(B, …)``, the scale of each call ``(T, calls)`` and its statistic, and what the
    backward pass needs. Where nothing collects there is one row of scales for all steps.

    Args:
        projected: the projected input of all steps, ``(T, B, K)``.
        matrices: what products are formed with, ``(width, features)`` each.
        biases: what is added to them, ``(width,)`` each.
        states: the states before the first step, ``(B, …)``.
        scales: of each call that does not collect, ``(calls,)``.
        code: the step, see :func:`~quant_rnn.native.program.encoded`.
        fields: of each call, see :data:`~quant_rnn.native.layout.FIELDS`.
        reverse: whether to start from the end.
    """
    layout = layout_of(tuple(code), tuple(fields))
    projected, states = projected.contiguous(), [state.contiguous() for state in states]
    length, batch = projected.shape[:2]
    starts, ends = starts_of(layout.kept, batch), starts_of(layout.widths[:1], batch)
    kept = projected.new_empty(length, starts[-1])
    aligned = projected.new_empty(length, ends[-1])
    used = scales.expand(rows_of_scales(length, fields), -1).clone(memory_format=torch.contiguous_format)
    found, at = torch.zeros_like(used), torch.zeros_like(used, dtype=torch.int64)
    tables = tables_of(layout.lookups, layout.levels, scales, ranges_of(fields, scales))
    run(
        layout.forward,
        buffers_of(projected, aligned, kept, states, starts, reverse),
        Numbers(calls_of(fields), used, found, at, tables=pointers_of(layout, tables)),
        factors_of(layout, matrices, biases),
        batch,
        range(length - 1, -1, -1) if reverse else range(length),
        length - 1 if reverse else 0,
    )
    last = 0 if reverse else length - 1
    out = aligned[:, : batch * layout.widths[0]].contiguous().view(length, batch, -1)
    lasts = [out[last].clone()]
    for place, width in zip(layout.after[1:], layout.widths[1:], strict=True):
        lasts.append(kept[last, starts[place.segment] :][: batch * width].view(batch, width).clone())
    return out, lasts, used, found, at, kept, tables


@torch.library.custom_op("quant_rnn::steps_backward", mutates_args=())
def all_steps_backward(
    for_out: Tensor | None,
    for_lasts: Sequence[Tensor | None],
    for_scales: Tensor | None,
    projected: Tensor,
    matrices: Sequence[Tensor],
    biases: Sequence[Tensor],
    states: Sequence[Tensor],
    out: Tensor,
    used: Tensor,
    at: Tensor,
    kept: Tensor,
    tables: Tensor,
    code: Sequence[int],
    fields: Sequence[float],
    reverse: bool,
) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor], Tensor]:
    """The gradients of the projected input, of matrices, biases and states, and of the scales that are given."""
    layout = layout_of(tuple(code), tuple(fields))
    length, batch = out.shape[:2]
    states = [state.contiguous() for state in states]
    starts = starts_of(layout.kept, batch)
    buffers = buffers_of(projected, out, kept, states, starts, reverse)
    carries = []
    for index, (state, gradient) in enumerate(zip(states, for_lasts, strict=True)):
        carry = state.new_zeros(2, *state.shape)
        if gradient is not None:
            carry[(0 if reverse else length - 1) & 1] = gradient
        carries.append(carry)
        buffers[f"carry{index}"], buffers[f"carried{index}"] = Buffer(carry, 0, 1), Buffer(carry, 1, 1)
    buffers["given"] = Buffer(torch.zeros_like(out) if for_out is None else for_out.contiguous())
    gradients = {"for_input": out.new_empty(length, batch, input_width(code))}
    for product in layout.products:
        if product.gradient.buffer not in gradients:
            gradients[product.gradient.buffer] = out.new_empty(length, batch, product.width)
    buffers.update({name: Buffer(tensor) for name, tensor in gradients.items()})
    collects = used.shape[0] > 1 or any(fields[4::FIELDS])
    sums, extra = torch.zeros(used.shape[1], dtype=torch.float64), None
    if collects and for_scales is not None:
        extra = for_scales.double().contiguous()
    numbers = Numbers(calls_of(fields), used, torch.empty(0), at, sums, extra, pointers_of(layout, tables))
    order = range(length) if reverse else range(length - 1, -1, -1)
    run(layout.backward, buffers, numbers, [Factor(matrix) for matrix in matrices], batch, order, order[-1])
    for_matrices, for_biases = [], [torch.empty_like(bias) for bias in biases]
    for product in layout.products:
        place = product.gradient
        gradient = gradients[place.buffer][..., place.column : place.column + product.width]
        rows = gradient.flatten(0, 1)
        for_matrices.append(
            torch.mm(rows.t(), factor_of(product.factor, product.features, out, kept, states, starts, reverse))
        )
        if product.bias >= 0:
            for_biases[product.bias] = rows.sum(0)
    lasts = [carry[(order[-1] + 1) & 1].clone() for carry in carries]
    return gradients["for_input"], for_matrices, for_biases, lasts, sums.to(used.dtype)


@all_steps.register_fake
def _all_steps_fake(
    projected: Tensor,
    matrices: Sequence[Tensor],
    biases: Sequence[Tensor],
    states: Sequence[Tensor],
    scales: Tensor,
    code: Sequence[int],
    fields: Sequence[float],
    reverse: bool,
) -> tuple[Tensor, list[Tensor], Tensor, Tensor, Tensor, Tensor, Tensor]:
    layout = layout_of(tuple(code), tuple(fields))
    length, batch = projected.shape[:2]
    used = scales.new_empty(rows_of_scales(length, fields), scales.shape[0])
    return (
        projected.new_empty(length, batch, layout.widths[0]),
        [state.new_empty(state.shape) for state in states],
        used,
        torch.empty_like(used),
        torch.empty_like(used, dtype=torch.int64),
        projected.new_empty(length, starts_of(layout.kept, batch)[-1]),
        projected.new_empty(len(layout.lookups), 3, layout.levels),
    )


@all_steps_backward.register_fake
def _all_steps_backward_fake(
    for_out: Tensor | None,
    for_lasts: Sequence[Tensor | None],
    for_scales: Tensor | None,
    projected: Tensor,
    matrices: Sequence[Tensor],
    biases: Sequence[Tensor],
    states: Sequence[Tensor],
    out: Tensor,
    used: Tensor,
    at: Tensor,
    kept: Tensor,
    tables: Tensor,
    code: Sequence[int],
    fields: Sequence[float],
    reverse: bool,
) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor], Tensor]:
    for_matrices, for_biases, for_states = (
        [part.new_empty(part.shape) for part in parts] for parts in (matrices, biases, states)
    )
    for_input = out.new_empty(*out.shape[:2], input_width(code))
    return for_input, for_matrices, for_biases, for_states, used.new_empty(used.shape[1])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
    projected, matrices, biases, states, _, *ctx.options = inputs
    out, _, used, found, at, kept, tables = output
    ctx.mark_non_differentiable(found, at, kept, tables)
    ctx.set_materialize_grads(False)
    ctx.counts = [len(matrices), len(biases), len(states)]
    read = layout_of(*(tuple(part) for part in ctx.options[:2])).reads_input
    given = [projected] if read else []
    ctx.save_for_backward(out, used, at, kept, tables, *matrices, *biases, *states, *given)


def _backward(ctx: Any, for_out: Tensor | None, for_lasts: Any, for_scales: Tensor | None, *_: Any) -> tuple[Any, ...]:
    if is_recorded():
        raise ConfigurationError(
            "the native steps of recurrent layers have no gradients of gradients",
            why="their backward pass through time is a kernel, which create_graph=True cannot look into",
            fix="Set QUANT_NATIVE=0 in the environment, so that the steps are operations of torch.",
        )
    out, used, at, kept, tables, *others = ctx.saved_tensors
    parts = []
    for count in ctx.counts:
        parts.append(others[:count])
        others = others[count:]
    projected = others[0] if others else out
    gradients = all_steps_backward(
        for_out,
        [None] * len(parts[2]) if for_lasts is None else for_lasts,
        for_scales,
        projected,
        *parts,
        out,
        used,
        at,
        kept,
        tables,
        *ctx.options,
    )
    fields = ctx.options[1]
    return *gradients, None, None if fields else [], None  # torch takes an empty list for one of tensors


all_steps.register_autograd(_backward, setup_context=_keep)
