"""Statistics over all processes of a training run: what one process would find in the joined batch.

Where :mod:`torch.distributed` is initialised with more than one process, statistics that are collected in training look at the
elements of all ranks, so that all have one scale. Each rank then has to run the same layers in the same order, as it has to for
synchronised batch norm.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.autograd.function import once_differentiable

from quant_core.tracing import constant_in_graphs, outside_of_graphs

_alone: ContextVar[bool] = ContextVar("alone", default=False)


@contextmanager
def each_rank_alone() -> Iterator[None]:
    """Within it every process collects from its own part of the batch, for example where only one of them runs the model.

    >>> with each_rank_alone():
    ...     joins_ranks()
    False
    """
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


@constant_in_graphs
def joins_ranks() -> bool:
    """Whether statistics are those of several processes.

    >>> joins_ranks()
    False
    """
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1 and not _alone.get()


@constant_in_graphs
def is_distributed() -> bool:
    """Whether this process belongs to a group, be it the only one in it: who averages gradients waits for all parameters.

    >>> is_distributed()
    False
    """
    return dist.is_available() and dist.is_initialized()


def of_all_ranks(rows: Tensor) -> Tensor:
    """The rows of all ranks, one after the other: ``(R, n_i)`` → ``(R, Σ n_i)``, of any ``n_i``.

    Gradient: each rank gets the sum of what all ranks send back to its elements. With losses that are means over the part of
    each rank, whose gradients are averaged, this is the gradient of the mean over the joined batch.

    >>> of_all_ranks(torch.ones(2, 3)).shape
    torch.Size([2, 3])
    """
    return _joined(rows) if joins_ranks() else rows


@outside_of_graphs("the ranks may have batches of different sizes, which a graph cannot ask for")
def _joined(rows: Tensor) -> Tensor:
    joined: Tensor = _Joined.apply(rows)  # type: ignore[no-untyped-call]
    return joined


def count_of_all_ranks(count: int, device: torch.device) -> int:
    """``Σ count_i``."""
    return sum(_counts(count, device)) if joins_ranks() else count


def _counts(count: int, device: torch.device) -> list[int]:
    own = torch.tensor([count], device=device)
    found = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(found, own)
    return [int(each.item()) for each in found]


class _Joined(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        counts = _counts(rows.shape[1], rows.device)
        padded = torch.nn.functional.pad(rows, (0, max(counts) - rows.shape[1])).contiguous()
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        ctx.start = sum(counts[: dist.get_rank()])
        ctx.count = rows.shape[1]
        return torch.cat([part[:, :count] for part, count in zip(parts, counts, strict=True)], dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        return total.narrow(1, ctx.start, ctx.count)
