"""The quantized tensor, and what becomes of its grid in each operation."""

from quant_core.tensor import dispatch as dispatch
from quant_core.tensor.accumulator import accumulator_bit_width
from quant_core.tensor.origin import GridOrigin
from quant_core.tensor.quant_tensor import QuantTensor
from quant_core.tensor.rules import RULES, table

__all__ = ["RULES", "GridOrigin", "QuantTensor", "accumulator_bit_width", "table"]
