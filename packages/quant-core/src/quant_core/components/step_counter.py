"""Counting training steps, in eager mode and in a compiled graph alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class StepCounter(nn.Module):
    """Counts training steps up to a limit, survives a checkpoint, and never makes a compiled graph recompile at each step.

    The count is a buffer, so that compiled code can advance it and a ``state_dict`` holds it. ``running`` is a plain Python
    flag that says whether the limit may not have been reached yet: eager code clears it at the limit; compiled code cannot,
    so that it stays set until the next ``train()``, ``eval()`` or ``load_state_dict()`` and the graph itself asks
    :meth:`finished`.

    With activation checkpointing (``torch.utils.checkpoint``) a forward is computed twice, the second time in the backward
    pass. That is no step of its own: it counts nothing, and ``running`` is what it was the first time. Whoever counts calls
    :meth:`begin` first, so that this is known; of several forwards before one backward pass it is the last. Where one forward is
    several steps, the layer says where it begins and ends, by :func:`one_forward`.

    Args:
        steps: the limit; ``None`` counts forever.

    >>> counter = StepCounter(2)
    >>> counter.advance(); counter.running
    True
    >>> counter.advance(); counter.running
    False
    """

    count: Tensor
    _began: int | None = None
    """The count at which the last forward of several steps began, unless the limit had been reached."""
    _again: int | None = None
    """The count while that forward is computed again."""

    def __init__(self, steps: int | None) -> None:
        super().__init__()
        self.steps = steps
        self._open = self._before = steps is None or steps > 0
        self.register_buffer("count", torch.tensor(0, dtype=torch.int64))

    @property
    def running(self) -> bool:
        """Whether the limit may not have been reached yet."""
        if not recomputing():
            return self._open
        return self._before if self._again is None or self.steps is None else self._again < self.steps

    @property
    def over(self) -> bool:
        """Whether the limit had been reached before the last forward began, so that there is nothing to tell apart."""
        return not (self._open or self._before) and self._began is None

    @property
    def left(self) -> int | None:
        """How many steps there are before the limit; ``None`` for any number, also in a forward that is computed again."""
        if self.steps is None or (recomputing() and self._again is None):
            return None
        return self.steps - (int(self.count) if self._again is None else self._again)

    def finished(self) -> Tensor:
        """Whether the limit has been reached, as a 0-dim bool tensor."""
        return torch.zeros_like(self.count, dtype=torch.bool) if self.steps is None else self.count >= self.steps

    def begin(self) -> None:
        """A forward in training mode begins."""
        if not torch.compiler.is_compiling() and not recomputing():
            self._before = self._open

    def advance(self, by: Tensor | int = 1) -> None:
        """Count one step, or ``by`` of them; stays at the limit."""
        if recomputing():
            if self._again is not None:
                self._again += int(by)
            return
        if torch.compiler.is_compiling() or self.count.is_meta:
            self.count.add_(by)
            if self.steps is not None:
                self.count.clamp_(max=self.steps)
            return
        count = int(self.count.item() + by)
        self.count.fill_(count if self.steps is None else min(count, self.steps))
        self._open = self.steps is None or count < self.steps

    def finish(self) -> None:
        """Go to the limit, where there is one.

        >>> counter = StepCounter(300)
        >>> counter.finish(); counter.running
        False
        """
        if self.steps is not None:
            with torch.no_grad():
                self.count.fill_(self.steps)
            self.refresh()

    def refresh(self) -> None:
        """Set ``running`` from the count, where there is one: not on the meta device."""
        if self.steps is not None and not self.count.is_meta:
            self._open = bool(self.count.item() < self.steps)

    def train(self, mode: bool = True) -> StepCounter:
        """Switch the mode, and see whether compiled code has reached the limit meanwhile."""
        if self._open:
            self.refresh()
        return super().train(mode)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.refresh()

    def extra_repr(self) -> str:
        """The limit."""
        return f"steps={self.steps}"


@contextmanager
def one_forward(counters: Sequence[StepCounter]) -> Iterator[None]:
    """Around a forward of several steps: computed again, each of them meets the count that it met the first time.

    Without it the last step speaks for all, which is wrong where the limit is reached on the way.

    >>> counter = StepCounter(2)
    >>> with one_forward([counter]):
    ...     counter.advance(); counter.advance()
    >>> counter.running, counter.over
    (False, False)
    >>> with one_forward([counter]):
    ...     counter.begin()
    >>> counter.over
    True
    """
    again = recomputing()
    for counter in counters:
        if again:
            counter._again = counter._began
        else:
            counter._began = int(counter.count) if counter._open and not counter.count.is_meta else None
    try:
        yield
    finally:
        for counter in counters:
            counter._again = None


def recomputing() -> bool:
    """Whether this is code that a backward pass runs, as activation checkpointing does to compute a forward again.

    >>> recomputing()
    False
    """
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1
