"""What calibration has collected, as tensors and numbers that a file can hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from quant_core.errors import StateError
from quant_nn.calibration.calibrators import Calibrator
from quant_nn.calibration.methods import Method

_KEYS = ("method", "bins", "batches", "calibrators", "own")


def state_of(method: Method, batches: int, calibrators: Mapping[str, Calibrator], own: Any) -> dict[str, Any]:
    """What ``torch.load(weights_only=True)`` reads.

    Args:
        method: how it was collected.
        batches: how many there were.
        calibrators: what was collected, by the path of the quantizer.
        own: the statistics that quantizers have collected themselves; ``None`` before they have begun.
    """
    kept = {
        name: {"scale_shape": list(calibrator.scale_shape), "state": dict(calibrator.state_dict())}
        for name, calibrator in calibrators.items()
    }
    return {"method": method.name, "bins": method.bins, "batches": batches, "calibrators": kept, "own": own}


def calibrators_of(
    state: Mapping[str, Any], empty: Callable[[str, tuple[int, ...]], Calibrator]
) -> dict[str, Calibrator]:
    """The calibrators in a state that was checked.

    Args:
        state: what :func:`state_of` made.
        empty: makes a calibrator of a name and the shape of a scale.
    """
    found = {}
    for name, kept in state["calibrators"].items():
        found[name] = empty(name, tuple(kept["scale_shape"]))
        found[name].load_state_dict(kept["state"])
    return found


def check_state(state: Mapping[str, Any], method: Method, names: Iterable[str]) -> None:
    """A state is that of a calibration with the same method, of quantizers that are calibrated here.

    Args:
        state: what :func:`state_of` made.
        method: that of the calibration that is to go on.
        names: of the quantizers for which it measures magnitudes.

    Raises:
        StateError: when it is not.
    """
    absent = [key for key in _KEYS if key not in state]
    if absent:
        raise StateError(
            "this is not the state of a calibration",
            why=f"it has no {absent[0]!r}",
            fix="Give what Calibration.state_dict() returned.",
        )
    mine = {"method": method.name, "bins": method.bins}
    known = set(names)
    other = [f"with {key} {state[key]!r}, and not {value!r}" for key, value in mine.items() if state[key] != value]
    other += [f"for {name!r}, which is not calibrated here" for name in state["calibrators"] if name not in known]
    if other:
        raise another_calibration(f"it was collected {other[0]}")


def another_calibration(why: str) -> StateError:
    """A state that does not fit."""
    return StateError(
        "this state is of another calibration",
        why=why,
        fix="Make the Calibration with the model, the method and the bins that it was saved with.",
    )
