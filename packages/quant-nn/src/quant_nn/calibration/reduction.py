"""Several processes, each with a part of the data: all of them end with what one would have found in all of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from quant_core.errors import StateError
from quant_nn.calibration.calibrators import Calibrator, HistogramCalibrator


def process_count() -> int:
    """How many processes calibrate together: those of the default process group, where there is one.

    >>> process_count()
    1
    """
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@contextmanager
def share_failure() -> Iterator[None]:
    """Tell the other processes when this one fails, so that they do not wait for it."""
    try:
        yield
    except BaseException as failure:
        if process_count() > 1:
            lines = [line.strip() for line in str(failure).splitlines()]
            _gathered(f"{type(failure).__name__}: {', '.join(lines[:2])}")  # what, and where
        raise


def check_all_well() -> None:
    """Every process has come this far.

    Raises:
        StateError: when one has failed; says which, and how.
    """
    if process_count() == 1:
        return
    failures = {rank: failure for rank, failure in enumerate(_gathered(None)) if failure is not None}
    if failures:
        rank, failure = next(iter(failures.items()))
        raise StateError(
            f"process {rank} has failed, and nothing has been calibrated",
            why=failure,
            fix="Correct what is wrong there, and calibrate again.",
        )


def reduced(
    calibrators: Mapping[str, Calibrator], empty: Callable[[str, tuple[int, ...]], Calibrator], batches: int
) -> tuple[dict[str, Calibrator], int]:
    """What all processes have collected, and the number of batches in all of them; what is given stays as it is.

    Maxima are joined by their maximum, and counts, in bins of the width of the widest process, by their sum: both are exact.

    Args:
        calibrators: by name; one that only other processes have is added.
        empty: makes one of a name and a shape.
        batches: of this process.
    """
    if process_count() == 1:
        return dict(calibrators), batches
    shapes: list[dict[str, Any]] = _gathered({name: found.scale_shape for name, found in calibrators.items()})
    device = next((found.largest.device for found in calibrators.values()), torch.device("cpu"))
    joint = {}
    for name, shape in sorted({name: shape for known in shapes for name, shape in known.items()}.items()):
        joint[name] = copy.deepcopy(calibrators[name]) if name in calibrators else empty(name, shape).to(device)
        _reduce_one(joint[name])
    return joint, sum(_gathered(batches))


def _reduce_one(calibrator: Calibrator) -> None:
    dist.all_reduce(calibrator.largest, dist.ReduceOp.MAX)
    dist.all_reduce(calibrator.elements, dist.ReduceOp.SUM)
    if isinstance(calibrator, HistogramCalibrator):
        widest = calibrator.exponent.clone()
        dist.all_reduce(widest, dist.ReduceOp.MAX)
        calibrator.widen_to(widest)
        dist.all_reduce(calibrator.counts, dist.ReduceOp.SUM)


def _gathered(mine: Any) -> list[Any]:
    found: list[Any] = [None] * process_count()
    dist.all_gather_object(found, mine)
    return found
