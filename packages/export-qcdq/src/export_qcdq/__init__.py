"""Export to standard ONNX with QuantizeLinear, Clip and DequantizeLinear: the target ``qcdq``."""

from importlib.metadata import version as _version

__version__ = _version("export-qcdq")
