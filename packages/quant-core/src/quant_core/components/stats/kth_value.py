"""The ``k``-th smallest element of each row, exact, without sorting the tensor.

Counted from the nearer end, the element is the ``m``-th largest (or smallest). Each of the ``m`` largest elements lies in one of
the ``m`` blocks with the largest maxima, so that only those blocks are searched. A ``k`` in the middle, where that would be
most of the tensor, is left to ``torch.kthvalue``.

The gradient of the element found goes to where it stands.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from quant_core.components.ranks import count_of_all_ranks, of_all_ranks

Order = Literal["magnitude", "value"]
Rounding = Literal["nearest", "up"]


def percentile_of_rows(rows: Tensor, q: float, order: Order, rounding: Rounding) -> Tensor:
    """The element of rank ``q/100 · n`` of each row: ``(R, n)`` → ``(R,)``, with its sign.

    Args:
        rows: float tensor ``(R, n)``.
        q: the percentile, 0 to 100.
        order: rank elements by their magnitude or by their value.
        rounding: how the rank becomes whole: ``⌊r + ½⌋`` or ``⌈r⌉``; at least 1.

    >>> percentile_of_rows(torch.tensor([[1.0, -2.0, 3.0, -4.0]]), 75.0, "magnitude", "nearest")
    tensor([3.])
    """
    if torch.compiler.is_compiling():
        # The search depends on the number of elements, which a graph for batches of any size does not know.
        captured: Tensor = torch.ops.quant_core.percentile(rows, q, order, rounding)[0]
        return captured
    index = index_of_kth(rows.detach(), rank(rows.shape[1], q, rounding), order)
    return rows.gather(1, index).squeeze(1)


def percentile_of_all_ranks(rows: Tensor, q: float, order: Order, rounding: Rounding) -> Tensor:
    """As :func:`percentile_of_rows`, for the rows of all processes together; only those elements go around that it may be.

    >>> percentile_of_all_ranks(torch.tensor([[1.0, -2.0, 3.0, -4.0]]), 75.0, "magnitude", "nearest")
    tensor([3.])
    """
    total = count_of_all_ranks(rows.shape[1], rows.device)
    k = rank(total, q, rounding)
    largest = 2 * k > total
    nth = total - k + 1 if largest else k  # the same element, counted from the nearer end
    if nth < rows.shape[1]:
        keys = rows.detach().abs() if order == "magnitude" else rows.detach()
        rows = rows.gather(1, keys.topk(nth, dim=1, largest=largest, sorted=False).indices)
    joined: Tensor = of_all_ranks(rows)
    index = index_of_kth(joined.detach(), joined.shape[1] - nth + 1 if largest else nth, order)
    return joined.gather(1, index).squeeze(1)


def rank(size: int, q: float, rounding: Rounding) -> int:
    """Which of ``size`` elements in ascending order a percentile is, from 1.

    >>> rank(10, 99.0, "nearest"), rank(10, 1.0, "up")
    (10, 1)
    """
    exact = 0.01 * q * size
    return min(size, max(1, math.ceil(exact) if rounding == "up" else math.floor(exact + 0.5)))


def index_of_kth(rows: Tensor, k: int, order: Order) -> Tensor:
    """Where the ``k``-th smallest element of each row stands: ``(R, n)`` → ``(R, 1)``.

    >>> index_of_kth(torch.tensor([[5.0, -9.0, 7.0]]), 2, "value")
    tensor([[0]])
    """
    size = rows.shape[1]
    largest = order == "magnitude" or 2 * k > size
    nth = size - k + 1 if largest else k  # the same element, counted from the end where the search starts
    block = math.isqrt(max(1, size // nth))
    blocks = size // block
    if nth * block * 8 > size:
        keys = rows.abs() if order == "magnitude" else rows
        return keys.kthvalue(k, dim=1, keepdim=True).indices
    body = rows[:, : blocks * block].view(rows.shape[0], blocks, block)  # (R, B, L)
    chosen = _extremes(body, order, largest).topk(nth, dim=1, largest=largest, sorted=False).indices  # (R, m)
    offsets = torch.arange(block, device=rows.device)
    candidates = (chosen.unsqueeze(2) * block + offsets).flatten(1)  # (R, m·L)
    tail = torch.arange(blocks * block, size, device=rows.device).expand(rows.shape[0], -1)
    candidates = torch.cat([candidates, tail], dim=1)
    keys = rows.gather(1, candidates)
    if order == "magnitude":
        keys = keys.abs_()
    return candidates.gather(1, keys.topk(nth, dim=1, largest=largest).indices[:, -1:])


def _extremes(body: Tensor, order: Order, largest: bool) -> Tensor:
    """The largest or smallest key of each block: ``(R, B, L)`` → ``(R, B)``."""
    if order == "value":
        return body.amax(dim=2) if largest else body.amin(dim=2)
    # Two passes without a temporary of the tensor's size; the infinity norm is several times slower.
    return torch.maximum(body.amax(dim=2), body.amin(dim=2).neg_())


_library = torch.library.Library("quant_core", "DEF")
_library.define(
    "percentile(Tensor rows, float q, str order, str rounding) -> (Tensor, Tensor)", tags=torch.Tag.pt2_compliant_tag
)


def _percentile(rows: Tensor, q: float, order: Order, rounding: Rounding) -> tuple[Tensor, Tensor]:
    index = index_of_kth(rows, rank(rows.shape[1], q, rounding), order)
    return rows.gather(1, index).squeeze(1), index


def _percentile_shapes(rows: Tensor, q: float, order: Order, rounding: Rounding) -> tuple[Tensor, Tensor]:
    return rows.new_empty(rows.shape[:1]), rows.new_empty((rows.shape[0], 1), dtype=torch.int64)


def _keep_index(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1])
    ctx.shape = inputs[0].shape


def _to_element(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None, None]:
    (index,) = ctx.saved_tensors
    return grad.new_zeros(ctx.shape).scatter(1, index, grad.unsqueeze(1)), None, None, None


_library.impl("percentile", _percentile, "CompositeExplicitAutograd")
torch.library.register_fake("quant_core::percentile", _percentile_shapes, lib=_library)
torch.library.register_autograd("quant_core::percentile", _to_element, setup_context=_keep_index, lib=_library)
