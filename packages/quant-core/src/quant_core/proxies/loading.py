"""Telling a float checkpoint from a quantized one that lacks something.

A float checkpoint holds no quantizers at all, and loads strictly. A checkpoint that holds some and misses others is not one:
what is missing must be reported. Each proxy sees only its own part of the checkpoint, so that they find out together: the list
of missing keys is one and the same throughout a call of ``load_state_dict``.

That quantizers start anew is told in one line of the logger ``quant_core``, at the level of information.
"""

from __future__ import annotations

import logging
import threading

_logger = logging.getLogger("quant_core")


class Load:
    """One call of ``load_state_dict``.

    Args:
        missing_keys: the list in which torch collects what is missing.
    """

    def __init__(self, missing_keys: list[str]) -> None:
        self.missing_keys = missing_keys
        self._left_out: list[str] = []
        self._quantized = False

    def found_quantizer(self) -> None:
        """The checkpoint holds a quantizer: what was left out before is missing after all."""
        self._quantized = True
        self.missing_keys.extend(self._left_out)
        self._left_out = []

    def may_leave_out(self, keys: list[str]) -> bool:
        """Whether the checkpoint may be a float one, as far as is known; remembers what it leaves out."""
        if self._quantized:
            return False
        if not self._left_out:
            _logger.info(
                "the checkpoint has no %s: taken for that of a float model, from whose weights quantizers start anew",
                keys[0],
            )
        self._left_out.extend(keys)
        return True


_loads = threading.local()


def current_load(missing_keys: list[str]) -> Load:
    """The call of ``load_state_dict`` to which a list of missing keys belongs."""
    load: Load | None = getattr(_loads, "current", None)
    if load is None or load.missing_keys is not missing_keys:
        load = _loads.current = Load(missing_keys)
    return load
