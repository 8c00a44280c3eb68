"""Export of quantized networks to torch's quantized operators and to pt2e.

Planned: this version holds nothing yet and registers nothing.
"""

from importlib.metadata import version as _version

__version__ = _version("export-torchq")
