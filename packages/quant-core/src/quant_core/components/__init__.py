"""The pieces of a quantizer: small modules that an injector wires by the names of their arguments."""

from quant_core.components.bit_width import (
    BitWidth,
    BitWidthRestriction,
    ConstBitWidth,
    FractionalBits,
    MsbClampBitWidth,
    ParameterBitWidth,
    PowerOfTwoBits,
    RelativeBitWidth,
    RemoveBitWidth,
    WholeBits,
)
from quant_core.components.delay import QuantDelay
from quant_core.components.granularity import Granularity, PerChannel, PerTensor, granularity_of
from quant_core.components.scaling import (
    ConstScaling,
    ParameterFromRuntimeStatsScaling,
    ParameterScaling,
    Scaling,
    StatsFromParameterScaling,
)
from quant_core.components.stats import AbsMax, AbsPercentile, Statistic
from quant_core.components.step_counter import StepCounter
from quant_core.components.tensor_quant import (
    BinaryQuant,
    ClampedBinaryQuant,
    IntQuant,
    PrescaledIntQuant,
    TensorQuant,
)
from quant_core.components.zero_point import ConstZeroPoint, ZeroPoint, ZeroZeroPoint

__all__ = [
    "AbsMax",
    "AbsPercentile",
    "BinaryQuant",
    "BitWidth",
    "BitWidthRestriction",
    "ClampedBinaryQuant",
    "ConstBitWidth",
    "ConstScaling",
    "ConstZeroPoint",
    "FractionalBits",
    "Granularity",
    "IntQuant",
    "MsbClampBitWidth",
    "ParameterBitWidth",
    "ParameterFromRuntimeStatsScaling",
    "ParameterScaling",
    "PerChannel",
    "PerTensor",
    "PowerOfTwoBits",
    "PrescaledIntQuant",
    "QuantDelay",
    "RelativeBitWidth",
    "RemoveBitWidth",
    "Scaling",
    "Statistic",
    "StatsFromParameterScaling",
    "StepCounter",
    "TensorQuant",
    "WholeBits",
    "ZeroPoint",
    "ZeroZeroPoint",
    "granularity_of",
]
