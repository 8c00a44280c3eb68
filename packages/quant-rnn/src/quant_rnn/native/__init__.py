"""Native steps: what stands behind the matrix product of one step, in one pass over memory, on the CPU, in float32."""

from __future__ import annotations

import functools
import logging

from quant_core.native import NativeBuildError, kernels
from quant_core.native.compiler import build
from quant_rnn.native.library import Steps

__all__ = ["Steps", "steps"]

_log = logging.getLogger(__name__)


@functools.cache
def steps() -> Steps | None:
    """The compiled steps; ``None`` where native kernels are switched off or cannot be compiled.

    ``QUANT_NATIVE`` decides, as for :func:`quant_core.native.kernels`.
    """
    if kernels() is None:
        return None
    try:
        return Steps(build("quant_rnn.native", "steps"))
    except (NativeBuildError, OSError) as error:
        _log.info("recurrent layers run without native steps: %s", error)
        return None
