"""Named quantizers: presets that are read top to bottom in one screen."""

from quant_core.quant.accumulator_aware import (
    Int8AccumulatorAwareWeightQuant,
    Int8AccumulatorAwareZeroCenterWeightQuant,
    Int8WeightNormL2PerChannelFixedPoint,
)
from quant_core.quant.activation import (
    Int8ActPerTensorFloat,
    Int8ActPerTensorFloatMinMaxInit,
    Uint8ActPerTensorFloat,
    Uint8ActPerTensorFloatMaxInit,
)
from quant_core.quant.batch_quant import (
    Int8ActPerTensorFloatBatchQuant1d,
    Int8ActPerTensorFloatBatchQuant2d,
    Uint8ActPerTensorFloatBatchQuant1d,
    Uint8ActPerTensorFloatBatchQuant2d,
)
from quant_core.quant.bias import (
    Int8Bias,
    Int8BiasPerTensorFloatInternalScaling,
    Int16Bias,
    Int24Bias,
    Int32Bias,
    IntBias,
)
from quant_core.quant.binary import SignedBinaryActPerTensorConst, SignedBinaryWeightPerTensorConst
from quant_core.quant.decoupled import Int4WeightPerTensorFloatDecoupled, Int8WeightPerChannelFloatDecoupled
from quant_core.quant.fixed_point import (
    Int8ActPerTensorFixedPoint,
    Int8BiasPerTensorFixedPointInternalScaling,
    Int8WeightPerChannelFixedPoint,
    Int8WeightPerTensorFixedPoint,
    Uint8ActPerTensorFixedPoint,
    Uint8ActPerTensorFixedPointMaxInit,
)
from quant_core.quant.mse import (
    Int8ActPerTensorFixedPointMSE,
    Int8ActPerTensorFloatMSE,
    Int8WeightPerChannelFixedPointMSE,
    Int8WeightPerChannelFloatMSE,
    Int8WeightPerTensorFixedPointMSE,
    Int8WeightPerTensorFloatMSE,
    Uint8ActPerTensorFixedPointMSE,
    Uint8ActPerTensorFloatMSE,
)
from quant_core.quant.none import NoneActQuant, NoneBiasQuant, NoneClampQuant, NoneTruncQuant, NoneWeightQuant
from quant_core.quant.shifted import (
    ShiftedUint8ActPerTensorFixedPoint,
    ShiftedUint8ActPerTensorFixedPointMSE,
    ShiftedUint8ActPerTensorFloat,
    ShiftedUint8ActPerTensorFloatHQO,
    ShiftedUint8ActPerTensorFloatMSE,
    ShiftedUint8WeightPerChannelFloat,
    ShiftedUint8WeightPerChannelFloatHQO,
    ShiftedUint8WeightPerChannelFloatMSE,
    ShiftedUint8WeightPerTensorFloat,
    ShiftedUint8WeightPerTensorFloatHQO,
    ShiftedUint8WeightPerTensorFloatMSE,
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
    "Int4WeightPerTensorFloatDecoupled",
    "Int8AccumulatorAwareWeightQuant",
    "Int8AccumulatorAwareZeroCenterWeightQuant",
    "Int8ActPerTensorFixedPoint",
    "Int8ActPerTensorFixedPointMSE",
    "Int8ActPerTensorFloat",
    "Int8ActPerTensorFloatBatchQuant1d",
    "Int8ActPerTensorFloatBatchQuant2d",
    "Int8ActPerTensorFloatMSE",
    "Int8ActPerTensorFloatMinMaxInit",
    "Int8Bias",
    "Int8BiasPerTensorFixedPointInternalScaling",
    "Int8BiasPerTensorFloatInternalScaling",
    "Int8WeightNormL2PerChannelFixedPoint",
    "Int8WeightPerChannelFixedPoint",
    "Int8WeightPerChannelFixedPointMSE",
    "Int8WeightPerChannelFloat",
    "Int8WeightPerChannelFloatDecoupled",
    "Int8WeightPerChannelFloatMSE",
    "Int8WeightPerTensorFixedPoint",
    "Int8WeightPerTensorFixedPointMSE",
    "Int8WeightPerTensorFloat",
    "Int8WeightPerTensorFloatMSE",
    "Int16Bias",
    "Int24Bias",
    "Int32Bias",
    "IntBias",
    "LearnedMsbClamp",
    "NoneActQuant",
    "NoneBiasQuant",
    "NoneClampQuant",
    "NoneTruncQuant",
    "NoneWeightQuant",
    "RoundTo8bit",
    "ShiftRoundSaturateTo8bit",
    "ShiftedUint8ActPerTensorFixedPoint",
    "ShiftedUint8ActPerTensorFixedPointMSE",
    "ShiftedUint8ActPerTensorFloat",
    "ShiftedUint8ActPerTensorFloatHQO",
    "ShiftedUint8ActPerTensorFloatMSE",
    "ShiftedUint8WeightPerChannelFloat",
    "ShiftedUint8WeightPerChannelFloatHQO",
    "ShiftedUint8WeightPerChannelFloatMSE",
    "ShiftedUint8WeightPerTensorFloat",
    "ShiftedUint8WeightPerTensorFloatHQO",
    "ShiftedUint8WeightPerTensorFloatMSE",
    "SignedBinaryActPerTensorConst",
    "SignedBinaryWeightPerTensorConst",
    "SignedTernaryActPerTensorConst",
    "SignedTernaryWeightPerTensorConst",
    "TruncTo8bit",
    "Uint8ActPerTensorFixedPoint",
    "Uint8ActPerTensorFixedPointMSE",
    "Uint8ActPerTensorFixedPointMaxInit",
    "Uint8ActPerTensorFloat",
    "Uint8ActPerTensorFloatBatchQuant1d",
    "Uint8ActPerTensorFloatBatchQuant2d",
    "Uint8ActPerTensorFloatMSE",
    "Uint8ActPerTensorFloatMaxInit",
]
