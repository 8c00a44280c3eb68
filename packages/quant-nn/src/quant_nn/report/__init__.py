"""What a model costs, layer by layer: bits, bytes, products, bit operations, accumulators, and what quantization loses.

>>> import quant_nn as qnn, torch
>>> report = summary(qnn.QuantLinear(8, 2, weight_bit_width=4), torch.ones(1, 8))
>>> report.total("macs"), report.total("quantized_bytes")
(16, 16)
"""

from quant_nn.report.plot import plot
from quant_nn.report.products import CountsProducts
from quant_nn.report.rows import LayerRow, ModelReport
from quant_nn.report.summarizing import summary

__all__ = ["CountsProducts", "LayerRow", "ModelReport", "plot", "summary"]
