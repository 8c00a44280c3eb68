"""Export of quantized networks to QONNX and FINN.

Planned: this version holds nothing yet and registers nothing.
"""

from importlib.metadata import version as _version

__version__ = _version("export-finn")
