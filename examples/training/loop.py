"""Epochs of training, and what share of the test images is classified correctly."""

from __future__ import annotations

from contextlib import suppress

import torch
import torch.nn.functional as F
from rich.progress import Progress
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, DistributedSampler

from quant_core.errors import InputError
from training.processes import Processes

Batches = DataLoader[tuple[Tensor, Tensor]]


def batches(
    examples: torch.utils.data.Dataset[tuple[Tensor, Tensor]],
    size: int,
    here: Processes,
    *,
    seed: int = 0,
    workers: int = 0,
    whole: bool = False,
) -> Batches:
    """Batches of ``size`` examples over all processes, in an order of its own in each epoch; only ``whole`` ones if asked for."""
    sampler = DistributedSampler(examples, here.count, here.rank, seed=seed, drop_last=whole)
    return DataLoader(examples, size // here.count, sampler=sampler, num_workers=workers, drop_last=whole)


def train_epoch(
    net: nn.Module,
    data: Batches,
    optimizer: Optimizer,
    schedule: LRScheduler,
    epoch: int,
    here: Processes,
    progress: Progress,
) -> float:
    """One pass over the data; returns the mean loss.

    Raises:
        SystemExit: when the loss is not finite; it names the first layer whose output is not.
    """
    assert isinstance(data.sampler, DistributedSampler)
    data.sampler.set_epoch(epoch)
    net.train()
    total = torch.zeros(2)
    shown = progress.add_task(f"epoch {epoch + 1}", total=len(data))
    for images, labels in data:
        optimizer.zero_grad()
        images = images.to(here.device)
        try:
            loss = F.cross_entropy(net(images), labels.to(here.device))
        except InputError as error:  # quantizers that collect statistics take no such numbers
            layer = first_not_finite(net, images)
            if layer is None:
                raise
            raise SystemExit(f"epoch {epoch + 1}: {layer}\n{error}") from error
        # All processes stop, or none: they look for the layer together.
        if here.sum(1.0 - torch.isfinite(loss.detach()).float()).item():
            layer = first_not_finite(net, images) or "every layer gives finite numbers for the images of this process"
            raise SystemExit(f"the loss is {loss.item()} in epoch {epoch + 1}: {layer}")
        loss.backward()
        optimizer.step()
        schedule.step()
        total += torch.tensor([loss.item(), 1.0])
        progress.advance(shown)
    progress.remove_task(shown)
    summed, count = here.sum(total).tolist()
    return summed / count


@torch.no_grad()
def accuracy(net: nn.Module, data: Batches, here: Processes) -> float:
    """The share of images that are classified correctly, by the network as the first process has it."""
    net.eval()
    here.agree(net)
    found = torch.zeros(2)
    for images, labels in data:
        right = net(images.to(here.device)).argmax(1).cpu() == labels
        found += torch.tensor([right.sum().item(), float(len(labels))])
    right_ones, all_of_them = here.sum(found).tolist()
    return right_ones / all_of_them


@torch.no_grad()
def first_not_finite(net: nn.Module, images: Tensor) -> str | None:
    """Which layer is the first whose output holds an infinity or NaN, in the mode that the network is in.

    For a run that is over: statistics take one more step.
    """
    found: list[str] = []

    def look(path: str, layer: nn.Module, out: object) -> None:
        value = getattr(out, "value", out)
        if isinstance(value, Tensor) and not bool(torch.isfinite(value).all()):
            found.append(f"{path.removeprefix('module.')} ({type(layer).__name__})")

    hooks = [
        layer.register_forward_hook(lambda layer, _, out, path=path: look(path, layer, out))
        for path, layer in net.named_modules()
        if path
    ]
    try:
        with suppress(InputError):
            net(images)
    finally:
        for hook in hooks:
            hook.remove()
    return f"{found[0]} gives a number that is not finite" if found else None
