"""Export of quantized networks to torch's quantized operators and to pt2e: planned. This version holds nothing yet, and registers nothing."""

from importlib.metadata import version as _version

__version__ = _version("export-torchq")
