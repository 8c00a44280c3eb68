"""Data that is gone through several times, by a model that is calibrated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

from quant_core.components import Scaling
from quant_core.errors import StateError
from quant_nn.calibration.batches import no_data
from quant_nn.calibration.observing import quantizers


def repeatable(data: Iterable[Any], model: nn.Module) -> Iterable[Any]:
    """The data, as a list where it can be gone through only once.

    Raises:
        InputError: when it is an iterator that has ended.

    >>> repeatable(iter([1, 2]), nn.Identity())
    [1, 2]
    """
    if not isinstance(data, Iterator):
        return data
    kept = list(data)
    if not kept:
        raise no_data(type(model).__name__)
    return kept


def check_calibrated(model: nn.Module, what: str) -> None:
    """All quantizers of the model know their range.

    Raises:
        StateError: when one waits for data; names it.
    """
    waiting = [
        path
        for path, proxy in quantizers(model).items()
        if any(isinstance(part, Scaling) and part.awaits_data for part in proxy.tensor_quant.modules())
    ]
    if waiting:
        raise StateError(
            f"{what} comes after calibration",
            where=", ".join(waiting),
            why="their ranges are not known yet, and so not what they will do",
            fix="Call quant_nn.calibrate(model, data) first.",
        )
