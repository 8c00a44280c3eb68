"""The largest absolute value, with the gradient that the scale of a weight needs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from quant_core.native import is_plain, kernels
from quant_core.ops.second_order import is_recorded, shares_of_largest


def largest_magnitude(rows: Tensor) -> Tensor:
    """``max |x|`` of each row: ``(R, n)`` → ``(R,)``.

    Gradient: ``sign(x)`` at the largest element of the row, shared evenly where several are equal.

    >>> x = torch.tensor([[0.5, -2.0, 2.0]], requires_grad=True)
    >>> largest_magnitude(x).backward()
    >>> x.grad
    tensor([[ 0.0000, -0.5000,  0.5000]])
    """
    if not _is_native(rows):
        return rows.abs().amax(dim=1)  # one line with and without gradients: torch.jit.trace compares it with itself
    found: Tensor = _LargestMagnitude.apply(rows)  # type: ignore[no-untyped-call]
    return found


def _is_native(rows: Tensor) -> bool:
    """Whether there is a gradient to save time in, and kernels that take the rows."""
    if torch.compiler.is_compiling() or not (rows.requires_grad and torch.is_grad_enabled()):
        return False
    return kernels() is not None and is_plain(rows) and rows.is_contiguous()


class _LargestMagnitude(torch.autograd.Function):
    """By the native kernels: a pass forward and two backward, without a temporary of the size of the tensor."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        library = kernels()
        assert library is not None
        largest = library.largest(rows)
        ctx.save_for_backward(rows, largest)
        return largest

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        library = kernels()
        assert library is not None
        rows, largest = ctx.saved_tensors
        if is_recorded():
            return grads[0].unsqueeze(1) * shares_of_largest(rows)
        return library.gradient_of_largest(rows, largest, grads[0].contiguous())
