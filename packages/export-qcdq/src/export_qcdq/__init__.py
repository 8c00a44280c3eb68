"""Export to standard ONNX: targets ``qcdq``, with QuantizeLinear and DequantizeLinear, and ``qop``, with integer operators."""

from importlib.metadata import version as _version

__version__ = _version("export-qcdq")
