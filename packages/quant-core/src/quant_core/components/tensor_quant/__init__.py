"""The quantizers of a tensor: scale, zero-point, bit width and rounding put together.

A *tensor quantizer* is a module that takes a float tensor and returns ``(value, scale, zero_point, bit_width)``: the
dequantized value and the grid that it lies on. Anything that does so can be the ``tensor_quant`` of a quantizer; those here
also tell their grid without quantizing (:meth:`TensorQuant.grid`).
"""

from quant_core.components.tensor_quant.accumulator import AccumulatorQuant
from quant_core.components.tensor_quant.base import Quantized, TensorQuant
from quant_core.components.tensor_quant.binary import BinaryQuant, ClampedBinaryQuant
from quant_core.components.tensor_quant.decoupled import DecoupledIntQuant
from quant_core.components.tensor_quant.integer import IntQuant
from quant_core.components.tensor_quant.minifloat import FloatQuant
from quant_core.components.tensor_quant.normalized import AccumulatorAwareIntQuant, WeightNormIntQuant
from quant_core.components.tensor_quant.prescaled import PrescaledIntQuant
from quant_core.components.tensor_quant.saturation import ClampIntQuant
from quant_core.components.tensor_quant.ternary import TernaryQuant
from quant_core.components.tensor_quant.truncation import TruncIntQuant

__all__ = [
    "AccumulatorAwareIntQuant",
    "AccumulatorQuant",
    "BinaryQuant",
    "ClampIntQuant",
    "ClampedBinaryQuant",
    "DecoupledIntQuant",
    "FloatQuant",
    "IntQuant",
    "PrescaledIntQuant",
    "Quantized",
    "TensorQuant",
    "TernaryQuant",
    "TruncIntQuant",
    "WeightNormIntQuant",
]
