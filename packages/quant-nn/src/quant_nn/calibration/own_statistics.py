"""Quantizers that collect what they would collect in training, and are done with it after calibration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from quant_core.components.step_counter import StepCounter
from quant_core.errors import ConfigurationError
from quant_nn.calibration.checkpoint import another_calibration
from quant_nn.calibration.methods import STATISTICS
from quant_nn.calibration.places import Place
from quant_nn.calibration.reduction import process_count

State = dict[str, Tensor]


class OwnStatistics:
    """The statistics of some quantizers, which the quantizers themselves collect.

    They do so in :meth:`collecting` only: between one such block and the next what they have collected is kept here, and the
    quantizers are as they were, until :meth:`applied` puts it into them.

    Args:
        places: the thresholds to be found.

    Attributes:
        collected: the state of each quantizer with what it has collected; ``None`` before it has begun.

    Raises:
        ConfigurationError: when a quantizer collects nothing, or there are several processes.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        self._quants: list[nn.Module] = [proxy.tensor_quant for place in places for proxy in place.proxies]
        self.collected: list[State] | None = None
        if places:
            _check_one_process()
        for place in places:
            if not isinstance(getattr(place.scaling, "collected", None), StepCounter):
                raise ConfigurationError(
                    f"the method {STATISTICS!r} cannot calibrate this quantizer",
                    where=place.name,
                    why=f"{type(place.scaling).__name__} collects no statistics in training",
                    fix="Use 'max', 'entropy', 'percentile' or 'mse'.",
                )

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Let the quantizers collect, from nothing or from what is kept here; the caller restores their modes."""
        before = self._states()
        try:
            if self.collected is None:
                self._begin()
            else:
                self._put(self.collected)
            for quant in self._quants:
                quant.train()
            yield
        finally:
            self._put(before)

    def keep(self) -> None:
        """Keep what the quantizers have collected by now; the rest of the block is forgotten when it fails."""
        self.collected = self._states()

    @contextmanager
    def applied(self) -> Iterator[None]:
        """What was collected is enough, however many steps were asked for; when the block raises, it is taken back."""
        before = self._states()
        try:
            if self.collected is not None:
                self._put(self.collected)
            yield
        except BaseException:
            self._put(before)
            raise
        for counter in self._counters():
            counter.finish()

    def load(self, states: Sequence[State]) -> None:
        """Go on from what another one has collected.

        Raises:
            StateError: when it is of other quantizers.
        """
        if [sorted(state) for state in states] != [sorted(state) for state in self._states()]:
            raise another_calibration(
                f"it holds the statistics of {len(states)} quantizers, and here are {len(self._quants)} or others"
            )
        self.collected = [{key: tensor.clone() for key, tensor in state.items()} for state in states]

    @torch.no_grad()
    def _begin(self) -> None:
        for counter in self._counters():
            counter.count.zero_()
            counter.refresh()

    def _states(self) -> list[State]:
        return [{key: found.detach().clone() for key, found in quant.state_dict().items()} for quant in self._quants]

    def _put(self, states: Sequence[dict[str, Any]]) -> None:
        for quant, state in zip(self._quants, states, strict=True):
            quant.load_state_dict(state)

    def _counters(self) -> Iterator[StepCounter]:
        for quant in self._quants:
            for part in quant.modules():
                if isinstance(counter := getattr(part, "collected", None), StepCounter):
                    yield counter


def _check_one_process() -> None:
    if process_count() > 1:
        raise ConfigurationError(
            "statistics of their own cannot be collected by several processes",
            why="the statistics are averages over the batches in their order, which several processes do not have",
            fix="Use 'max', 'entropy', 'percentile' or 'mse'.",
        )
