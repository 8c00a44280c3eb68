"""The line of a user's code at which something failed, for messages."""

from __future__ import annotations

import sys
import traceback
from typing import Final

_OURS: Final = ("torch", "quant_core")


def last_line(failure: BaseException) -> str:
    """The last line of code outside of torch, this package and Python's own library that a failure passed through.

    Returns:
        ``"file:line"``, or nothing when there is none.

    >>> try:
    ...     exec("x = 1\\nint('one')", {"__name__": "of_a_user"})
    ... except ValueError as failure:
    ...     last_line(failure)
    '<string>:2'
    """
    line = ""
    for frame, number in traceback.walk_tb(failure.__traceback__):
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if package not in _OURS and package not in sys.stdlib_module_names:
            line = f"{frame.f_code.co_filename}:{number}"
    return line
