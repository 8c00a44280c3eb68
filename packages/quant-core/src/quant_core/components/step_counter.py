"""Counting training steps, in eager mode and in a compiled graph alike."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class StepCounter(nn.Module):
    """Counts training steps up to a limit, survives a checkpoint, and never makes a compiled graph recompile at each step.

    The count is a buffer, so that compiled code can advance it and a ``state_dict`` holds it. ``running`` is a plain Python
    flag that says whether the limit may not have been reached yet: eager code clears it at the limit; compiled code cannot,
    so that it stays set until the next ``train()``, ``eval()`` or ``load_state_dict()`` and the graph itself asks
    :meth:`finished`.

    >>> counter = StepCounter(2)
    >>> counter.advance(); counter.running
    True
    >>> counter.advance(); counter.running
    False
    """

    count: Tensor

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.running = steps > 0
        self.register_buffer("count", torch.tensor(0, dtype=torch.int64))

    def finished(self) -> Tensor:
        """Whether the limit has been reached, as a 0-dim bool tensor."""
        return self.count >= self.steps

    def advance(self) -> None:
        """Count one step; stays at the limit."""
        with torch.no_grad():
            self.count.add_(1).clamp_(max=self.steps)
        if not torch.compiler.is_compiling():
            self.refresh()

    def refresh(self) -> None:
        """Set ``running`` from the count, where there is one: not on the meta device."""
        if not self.count.is_meta:
            self.running = bool(self.count.item() < self.steps)

    def train(self, mode: bool = True) -> StepCounter:
        """Switch the mode, and see whether compiled code has reached the limit meanwhile."""
        if self.running:
            self.refresh()
        return super().train(mode)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.refresh()

    def extra_repr(self) -> str:
        """The limit."""
        return f"steps={self.steps}"
