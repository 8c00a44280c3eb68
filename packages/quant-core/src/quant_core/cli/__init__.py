"""The ``quant`` command. Starting it imports neither torch nor onnx; a command imports them when it needs them."""

from quant_core.cli.main import main

__all__ = ["main"]
