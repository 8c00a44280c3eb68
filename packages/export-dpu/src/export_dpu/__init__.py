"""Export to the ONNX of 8-bit integers that PyXIR compiles for Xilinx DPUs: the targets ``dpuv1`` and ``dpuv2``."""

from importlib.metadata import version as _version

__version__ = _version("export-dpu")
