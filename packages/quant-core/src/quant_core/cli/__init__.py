"""The ``quant`` command."""

from quant_core.cli.main import main

__all__ = ["main"]
