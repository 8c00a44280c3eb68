"""Rounding modes: how a real number becomes an integer.

Each mode is a function of one tensor, exact for every float that the dtype can hold. The names are upper case because
clients of the exported files compare them case-sensitively.

=========== ============================================ ======== ======== ======== ========
mode        rule                                          −1.5     −0.5     0.5      1.7
=========== ============================================ ======== ======== ======== ========
``ROUND``   to the nearest, ties to even                  −2       −0       0        2
``HALF_UP`` to the nearest, ties towards +∞               −1       −0       1        2
``DPU``     as ``HALF_UP`` below zero, ``ROUND`` above    −1       −0       0        2
``FLOOR``   towards −∞                                    −2       −1       0        1
``CEIL``    towards +∞                                    −1       −0       1        2
``TO_ZERO`` towards zero                                  −1       −0       0        1
=========== ============================================ ======== ======== ======== ========
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, get_args

import torch
from torch import Tensor

from quant_core.errors import ConfigurationError, did_you_mean

RoundingMode = Literal["ROUND", "HALF_UP", "DPU", "FLOOR", "CEIL", "TO_ZERO"]

ROUNDING_MODES: Final[tuple[str, ...]] = get_args(RoundingMode)


def round_half_up(x: Tensor) -> Tensor:
    """``floor(x) + [x − floor(x) ≥ ½]``: to the nearest integer, ties towards +∞.

    ``floor(x + 0.5)`` would be wrong for the largest float below one half, whose sum with 0.5 rounds up to 1.

    >>> round_half_up(torch.tensor([-2.5, -0.5, 0.5, 0.49999997]))
    tensor([-2.,  0.,  1.,  0.])
    """
    below = torch.floor(x)
    return below + (x - below >= 0.5)


def round_dpu(x: Tensor) -> Tensor:
    """To the nearest integer; ties towards +∞ below zero, to even above: what the DPU of Vitis AI computes.

    >>> round_dpu(torch.tensor([-2.5, -1.5, 1.5, 2.5]))
    tensor([-2., -1.,  2.,  2.])
    """
    return torch.where(x < 0, round_half_up(x), torch.round(x))


_ROUNDINGS: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "ROUND": torch.round,
    "HALF_UP": round_half_up,
    "DPU": round_dpu,
    "FLOOR": torch.floor,
    "CEIL": torch.ceil,
    "TO_ZERO": torch.trunc,
}


def round_to_integer(x: Tensor, mode: str = "ROUND") -> Tensor:
    """Round ``x`` (any float dtype and shape) to integers in the same dtype; the gradient is zero almost everywhere.

    >>> round_to_integer(torch.tensor([-1.5, 0.5, 1.7]), "TO_ZERO")
    tensor([-1.,  0.,  1.])
    """
    return _ROUNDINGS[mode](x)


def check_rounding_mode(mode: str) -> str:
    """Return ``mode`` when it is a known rounding mode.

    Raises:
        ConfigurationError: for any other word, with the nearest known one.
    """
    if mode not in _ROUNDINGS:
        known = ", ".join(ROUNDING_MODES)
        near = did_you_mean(mode.upper(), ROUNDING_MODES) if isinstance(mode, str) else f"Choose one of {known}."
        raise ConfigurationError(f"unknown rounding_mode {mode!r}", why=f"a rounding mode is one of {known}", fix=near)
    return mode
