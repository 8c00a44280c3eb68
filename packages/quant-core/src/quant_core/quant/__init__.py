"""Named quantizers: presets that are read top to bottom in one screen."""

from quant_core.quant.activation import Int8ActPerTensorFloat, Uint8ActPerTensorFloat
from quant_core.quant.bias import Int8Bias, Int16Bias, Int32Bias
from quant_core.quant.binary import SignedBinaryActPerTensorConst, SignedBinaryWeightPerTensorConst
from quant_core.quant.none import NoneActQuant, NoneBiasQuant, NoneClampQuant, NoneTruncQuant, NoneWeightQuant
from quant_core.quant.shifted import (
    ShiftedUint8ActPerTensorFloat,
    ShiftedUint8ActPerTensorFloatHQO,
    ShiftedUint8WeightPerChannelFloat,
    ShiftedUint8WeightPerChannelFloatHQO,
    ShiftedUint8WeightPerTensorFloat,
    ShiftedUint8WeightPerTensorFloatHQO,
)
from quant_core.quant.ternary import SignedTernaryActPerTensorConst, SignedTernaryWeightPerTensorConst
from quant_core.quant.truncation import (
    ClampTo16bit,
    LearnedMsbClamp,
    RoundTo8bit,
    ShiftRoundSaturateTo8bit,
    TruncTo8bit,
)
from quant_core.quant.weight import Int8WeightPerChannelFloat, Int8WeightPerTensorFloat

__all__ = [
    "ClampTo16bit",
    "Int8ActPerTensorFloat",
    "Int8Bias",
    "Int8WeightPerChannelFloat",
    "Int8WeightPerTensorFloat",
    "Int16Bias",
    "Int32Bias",
    "LearnedMsbClamp",
    "NoneActQuant",
    "NoneBiasQuant",
    "NoneClampQuant",
    "NoneTruncQuant",
    "NoneWeightQuant",
    "RoundTo8bit",
    "ShiftRoundSaturateTo8bit",
    "ShiftedUint8ActPerTensorFloat",
    "ShiftedUint8ActPerTensorFloatHQO",
    "ShiftedUint8WeightPerChannelFloat",
    "ShiftedUint8WeightPerChannelFloatHQO",
    "ShiftedUint8WeightPerTensorFloat",
    "ShiftedUint8WeightPerTensorFloatHQO",
    "SignedBinaryActPerTensorConst",
    "SignedBinaryWeightPerTensorConst",
    "SignedTernaryActPerTensorConst",
    "SignedTernaryWeightPerTensorConst",
    "TruncTo8bit",
    "Uint8ActPerTensorFloat",
]
