"""Checkpoints: those of other libraries, and loading that is all or nothing."""

from quant_core.checkpoints.brevitas import from_brevitas
from quant_core.checkpoints.strict import load_checkpoint

__all__ = ["from_brevitas", "load_checkpoint"]
