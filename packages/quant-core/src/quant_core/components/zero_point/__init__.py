"""Where the zero-point comes from: the integer that stands for the real number 0."""

from quant_core.components.zero_point.base import ZeroPoint
from quant_core.components.zero_point.constant import ConstZeroPoint, ZeroZeroPoint
from quant_core.components.zero_point.from_runtime import ParameterFromRuntimeZeroPoint
from quant_core.components.zero_point.from_weight import (
    ParameterFromStatsFromParameterZeroPoint,
    StatsFromParameterZeroPoint,
)
from quant_core.components.zero_point.learned import ParameterZeroPoint
from quant_core.components.zero_point.shifted import ShiftedZeroPoint

__all__ = [
    "ConstZeroPoint",
    "ParameterFromRuntimeZeroPoint",
    "ParameterFromStatsFromParameterZeroPoint",
    "ParameterZeroPoint",
    "ShiftedZeroPoint",
    "StatsFromParameterZeroPoint",
    "ZeroPoint",
    "ZeroZeroPoint",
]
