"""Statistics of a tensor that a scale is computed from.

Each is a module of a granularity: ``forward(x)`` takes a float tensor and gives a tensor of the scale's shape.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from quant_core.components.fit import check_not_empty
from quant_core.components.granularity import Granularity, PerTensor
from quant_core.errors import ConfigurationError


class Statistic(nn.Module):
    """Base of all statistics: subclasses define :meth:`of_rows`.

    Args:
        granularity: which elements share a scale.
    """

    def __init__(self, granularity: Granularity = PerTensor()) -> None:  # noqa: B008
        super().__init__()
        self.granularity = granularity

    def of_rows(self, rows: Tensor) -> Tensor:
        """One number for each row: ``(R, n)`` → ``(R,)``."""
        raise NotImplementedError(f"{type(self).__name__} must define of_rows(rows)")

    def forward(self, x: Tensor) -> Tensor:
        """``x``: float tensor; returns a tensor of the scale's shape."""
        check_not_empty(x)
        return self.of_rows(self.granularity.rows(x)).reshape(self.granularity.scale_shape(x))


class AbsMax(Statistic):
    """``max |x|`` over the elements that share a scale.

    Gradient: ``sign(x)`` at the largest element, shared evenly where several are equal.

    >>> AbsMax()(torch.tensor([0.5, -2.0]))
    tensor(2.)
    """

    def of_rows(self, rows: Tensor) -> Tensor:
        """The largest absolute value of each row."""
        return rows.abs().amax(dim=1)


class AbsPercentile(Statistic):
    """The ``k``-th smallest of ``|x|``, with ``k = ⌊q/100 · n + ½⌋`` of ``n`` elements (at least 1).

    Exact, without sorting the tensor: of the ``m = n − k + 1`` largest elements each lies in one of the ``m`` blocks with the
    largest maxima, so that only those blocks are searched.

    Args:
        high_percentile_q: the percentile ``q``, above 0 and at most 100.
        granularity: which elements share a scale.

    Gradient: ``sign(x)`` at the element found.

    Raises:
        ConfigurationError: when ``q`` is out of range.

    >>> AbsPercentile(50.0)(torch.tensor([1.0, -2.0, 3.0, -4.0]))
    tensor(2.)
    """

    def __init__(self, high_percentile_q: float = 99.999, granularity: Granularity = PerTensor()) -> None:  # noqa: B008
        super().__init__(granularity)
        if not 0 < high_percentile_q <= 100:
            raise ConfigurationError(
                f"high_percentile_q={high_percentile_q!r} is not a percentile",
                why="a percentile lies above 0 and at most at 100",
                fix="Use 99.999 to leave out outliers, or AbsMax for the largest value.",
            )
        self.high_percentile_q = high_percentile_q

    def of_rows(self, rows: Tensor) -> Tensor:
        """The percentile of the absolute values of each row."""
        if torch.compiler.is_compiling():
            # The search depends on the number of elements, which a graph for batches of any size does not know.
            captured: Tensor = torch.ops.quant_core.abs_percentile(rows, self.high_percentile_q)[0]
            return captured
        found: Tensor = _AbsKthValue.apply(rows, _rank(rows, self.high_percentile_q))  # type: ignore[no-untyped-call]
        return found

    def extra_repr(self) -> str:
        """The percentile."""
        return f"q={self.high_percentile_q:g}"


def _rank(rows: Tensor, q: float) -> int:
    return max(1, math.floor(0.01 * q * rows.shape[1] + 0.5))


class _AbsKthValue(torch.autograd.Function):
    """The ``rank``-th smallest absolute value of each row, with the gradient at the element found."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, rank: int) -> Tensor:
        index = _index_of_kth(rows, rank)
        found = rows.gather(1, index)
        ctx.save_for_backward(index, found.sign())
        ctx.shape = rows.shape
        return found.abs().squeeze(1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        index, sign = ctx.saved_tensors
        grad = torch.zeros(ctx.shape, dtype=sign.dtype, device=sign.device)
        return grad.scatter_(1, index, grads[0].unsqueeze(1) * sign), None


def _index_of_kth(rows: Tensor, rank: int) -> Tensor:
    """Where the ``rank``-th smallest absolute value of each row stands: ``(R, n)`` → ``(R, 1)``."""
    size = rows.shape[1]
    largest = size - rank + 1  # the same element, counted from the top
    block = math.isqrt(max(1, size // largest))
    blocks = size // block
    if largest * block * 8 > size:
        return rows.abs().kthvalue(rank, dim=1, keepdim=True).indices
    body = rows[:, : blocks * block].view(rows.shape[0], blocks, block)  # (R, B, L)
    # Two passes without a temporary of the tensor's size; the infinity norm is several times slower.
    maxima = torch.maximum(body.amax(dim=2), body.amin(dim=2).neg_())  # (R, B)
    chosen = maxima.topk(largest, dim=1, sorted=False).indices  # (R, m)
    offsets = torch.arange(block, device=rows.device)
    candidates = (chosen.unsqueeze(2) * block + offsets).flatten(1)  # (R, m·L)
    tail = torch.arange(blocks * block, size, device=rows.device).expand(rows.shape[0], -1)
    candidates = torch.cat([candidates, tail], dim=1)
    best = rows.gather(1, candidates).abs().topk(largest, dim=1).indices[:, -1:]
    return candidates.gather(1, best)


_library = torch.library.Library("quant_core", "DEF")
_library.define("abs_percentile(Tensor rows, float q) -> (Tensor, Tensor)", tags=torch.Tag.pt2_compliant_tag)


def _abs_percentile(rows: Tensor, q: float) -> tuple[Tensor, Tensor]:
    index = _index_of_kth(rows, _rank(rows, q))
    return rows.gather(1, index).abs().squeeze(1), index


def _abs_percentile_shapes(rows: Tensor, q: float) -> tuple[Tensor, Tensor]:
    return rows.new_empty(rows.shape[:1]), rows.new_empty((rows.shape[0], 1), dtype=torch.int64)


def _keep_index(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    rows, index = inputs[0], output[1]
    ctx.save_for_backward(index, rows.gather(1, index).sign())
    ctx.shape = rows.shape


def _to_element(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None]:
    index, sign = ctx.saved_tensors
    return sign.new_zeros(ctx.shape).scatter(1, index, grad.unsqueeze(1) * sign), None


_library.impl("abs_percentile", _abs_percentile, "CompositeExplicitAutograd")
torch.library.register_fake("quant_core::abs_percentile", _abs_percentile_shapes, lib=_library)
torch.library.register_autograd("quant_core::abs_percentile", _to_element, setup_context=_keep_index, lib=_library)
