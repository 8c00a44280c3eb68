"""One process, or several that ``torchrun`` started, each with a part of every batch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch import distributed as dist

Strategy = Literal["ddp", "fsdp"]


@dataclass(frozen=True, kw_only=True)
class Processes:
    """Which process this is, of how many, and where it computes."""

    rank: int
    count: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes files and talks."""
        return self.rank == 0

    def sum(self, numbers: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.count > 1:
            dist.all_reduce(numbers)
        return numbers

    def agree(self, net: nn.Module) -> None:
        """Give all processes the buffers of the first one: each has statistics of its own part of the batches."""
        if self.count > 1:
            for buffer in net.buffers():
                dist.broadcast(buffer, 0)


@contextmanager
def processes() -> Iterator[Processes]:
    """The processes of this run, as ``torchrun`` tells them by its environment variables."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if on_gpu else torch.device("cpu")
    if count == 1:
        yield Processes(rank=0, count=1, device=device)
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")  # sums of counts stay on the CPU
    try:
        yield Processes(rank=dist.get_rank(), count=count, device=device)
    finally:
        dist.destroy_process_group()


def joined(net: nn.Module, strategy: Strategy, here: Processes) -> nn.Module:
    """A network whose gradients are averaged over the processes; ``"fsdp"`` also spreads its parameters over them."""
    if here.count == 1:
        return net
    if strategy == "ddp":
        return nn.parallel.DistributedDataParallel(net)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    # Scales are single numbers, which cannot be spread: each process keeps them, and averages their gradients.
    kept = {parameter for parameter in net.parameters() if parameter.dim() == 0}
    for parameter in kept:
        parameter.register_post_accumulate_grad_hook(_average)
    return fully_shard(net, mesh=init_device_mesh(here.device.type, (here.count,)), ignored_params=kept)


def _average(parameter: Tensor) -> None:
    if parameter.grad is not None:
        dist.all_reduce(parameter.grad)
        parameter.grad /= dist.get_world_size()
