"""Checkpoints of other libraries, read into models of this one."""

from quant_core.checkpoints.brevitas import from_brevitas

__all__ = ["from_brevitas"]
