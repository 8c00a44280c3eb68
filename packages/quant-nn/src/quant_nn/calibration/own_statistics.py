"""Quantizers that collect what they would collect in training, and are done with it after calibration."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from quant_core.components.step_counter import StepCounter
from quant_core.errors import ConfigurationError
from quant_nn.calibration.methods import STATISTICS
from quant_nn.calibration.places import Place
from quant_nn.calibration.reduction import process_count


class OwnStatistics:
    """The statistics of some quantizers, which are collected in the quantizers themselves.

    Args:
        places: the thresholds to be found.

    Raises:
        ConfigurationError: when a quantizer collects nothing, or there are several processes.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        self._quants: list[nn.Module] = [proxy.tensor_quant for place in places for proxy in place.proxies]
        self._before = [copy.deepcopy(quant.state_dict()) for quant in self._quants]
        self._begun = False
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

    @torch.no_grad()
    def begin(self) -> None:
        """Let the quantizers collect: those that have done so before start anew. The caller restores their modes."""
        for counter in () if self._begun else self._counters():
            counter.count.zero_()
            counter.refresh()
        for quant in self._quants:
            quant.train()
        self._begun = True

    def finish(self) -> None:
        """What was collected is enough, however many steps were asked for."""
        for counter in self._counters():
            counter.finish()

    def undo(self) -> None:
        """Put the quantizers in the state in which they were."""
        for quant, state in zip(self._quants, self._before, strict=True):
            quant.load_state_dict(state)

    def state_dict(self) -> list[dict[str, Any]]:
        """What has been collected."""
        return [dict(quant.state_dict()) for quant in self._quants]

    def load_state_dict(self, states: Sequence[dict[str, Any]]) -> None:
        """Go on from what has been collected."""
        for quant, state in zip(self._quants, states, strict=True):
            quant.load_state_dict(state)
        self._begun = True

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
