"""Native kernels: integer fake quantization in one pass over memory, on the CPU, in float32.

They compute the same numbers as the torch operations, to the bit, and their gradients more exactly; what they save is time. The
C source is compiled when a quantizer first runs, in well under a second, and the library is kept in the user's cache. Where there
is no C compiler, and for tensors that they do not take, the torch operations run instead.

``QUANT_NATIVE=0`` switches them off, ``QUANT_NATIVE=1`` makes it an error when they cannot be compiled.
"""

from __future__ import annotations

import functools
import logging
import os

from quant_core.errors import ConfigurationError
from quant_core.native.acceptance import is_acceptable
from quant_core.native.binding import ABOVE, BELOW, SOURCES, UNIT, Grain
from quant_core.native.compiler import NativeBuildError, build
from quant_core.native.grain import grain_of, has_values, is_plain
from quant_core.native.library import Kernels

__all__ = [
    "ABOVE",
    "BELOW",
    "UNIT",
    "Grain",
    "Kernels",
    "NativeBuildError",
    "grain_of",
    "has_values",
    "is_plain",
    "kernels",
]

_log = logging.getLogger(__name__)


@functools.cache
def kernels() -> Kernels | None:
    """The compiled kernels; ``None`` where they are switched off or cannot be compiled.

    Raises:
        NativeBuildError: when they cannot be compiled, and ``QUANT_NATIVE=1`` says that they must.
        ConfigurationError: when ``QUANT_NATIVE`` is neither ``0``, ``1`` nor ``auto``.
    """
    wanted = os.environ.get("QUANT_NATIVE", "auto")
    if wanted not in ("0", "1", "auto"):
        raise ConfigurationError(
            f"QUANT_NATIVE={wanted!r} is not a setting",
            where="the environment",
            why="native kernels are off (0), required (1), or used where they can be compiled (auto)",
            fix="Set QUANT_NATIVE to 0, 1 or auto, or unset it.",
        )
    if wanted == "0":
        return None
    try:
        return _accepted(Kernels(build(*SOURCES)))
    except (NativeBuildError, OSError) as error:
        if wanted == "1":
            raise
        _log.info("quantizers run without native kernels: %s", error)
        return None


def _accepted(compiled: Kernels) -> Kernels:
    if is_acceptable(compiled):
        return compiled
    raise NativeBuildError(
        "the native kernels compute other numbers than torch",
        why="the C compiler of this machine translated them wrongly",
        fix="Set CC to another compiler, or QUANT_NATIVE=0 to do without them.",
    )
