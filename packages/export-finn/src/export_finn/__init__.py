"""Export to QONNX and to FINN-ONNX: the targets ``qonnx`` and ``finn``."""

from importlib.metadata import version as _version

__version__ = _version("export-finn")
