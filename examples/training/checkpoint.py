"""The state of a run after an epoch, from which it goes on as if it had never stopped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from training.processes import Processes

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
"""Parameters that are spread over processes are put together again."""
LOADED = StateDictOptions(full_state_dict=True, strict=False)
"""A scale that is still collected has had no gradient, and the optimizer nothing to remember of it."""


Settings = dict[str, str | int | float | None]
"""What a run cannot change on its way and still be the same run."""


def save(
    path: Path,
    net: nn.Module,
    optimizer: Optimizer,
    schedule: LRScheduler,
    epoch: int,
    here: Processes,
    settings: Settings,
) -> None:
    """Write the file, whole or not at all; all processes take part, and the first one writes."""
    state = {
        "model": get_model_state_dict(net, options=WHOLE),
        "optimizer": get_optimizer_state_dict(net, optimizer, options=WHOLE),
        "schedule": schedule.state_dict(),
        "epoch": epoch,
        "random": torch.get_rng_state(),
        "settings": settings,
    }
    if here.is_first:
        unfinished = path.with_suffix(".unfinished")
        torch.save(state, unfinished)
        os.replace(unfinished, path)


def load(path: Path, settings: Settings) -> dict[str, Any]:
    """Read a file that :func:`save` wrote.

    Raises:
        ValueError: when the run had other settings; says which.
    """
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    then = state["settings"]
    others = [
        f"{name} {then.get(name)!r}, not {given!r}" for name, given in settings.items() if then.get(name) != given
    ]
    if others:
        raise ValueError(f"{path} is of a run with {', '.join(others)}")
    return state


def resume(state: dict[str, Any], net: nn.Module, optimizer: Optimizer, schedule: LRScheduler) -> int:
    """Go on from a state whose model is loaded already; returns the number of epochs that are done."""
    set_optimizer_state_dict(net, optimizer, state["optimizer"], options=LOADED)
    for name, parameter in net.named_parameters():
        if name.removeprefix("module.") not in state["optimizer"]["state"]:
            optimizer.state.pop(parameter, None)  # torch has filled in what a first step would leave
    schedule.load_state_dict(state["schedule"])
    torch.set_rng_state(state["random"])
    return int(state["epoch"])
