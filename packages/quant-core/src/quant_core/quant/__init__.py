"""Named quantizers: presets that are read top to bottom in one screen."""

from quant_core.quant.activation import Int8ActPerTensorFloat, Uint8ActPerTensorFloat
from quant_core.quant.bias import Int8Bias, Int16Bias, Int32Bias
from quant_core.quant.weight import Int8WeightPerChannelFloat, Int8WeightPerTensorFloat

__all__ = [
    "Int8ActPerTensorFloat",
    "Int8Bias",
    "Int8WeightPerChannelFloat",
    "Int8WeightPerTensorFloat",
    "Int16Bias",
    "Int32Bias",
    "Uint8ActPerTensorFloat",
]
