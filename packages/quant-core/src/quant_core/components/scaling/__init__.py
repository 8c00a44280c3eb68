"""Where the threshold comes from: the real number that the largest integer of a quantizer stands for.

A scaling implementation gives the threshold; the quantizer divides it by the largest integer to obtain the scale. All take
the tensor that is being quantized and return a positive tensor broadcastable to it.
"""

from quant_core.components.scaling.affine import AffineRescaling
from quant_core.components.scaling.base import Scaling
from quant_core.components.scaling.constant import ConstScaling
from quant_core.components.scaling.parameter import ParameterScaling
from quant_core.components.scaling.runtime import ParameterFromRuntimeStatsScaling, RuntimeStatsScaling
from quant_core.components.scaling.statistics import ParameterFromStatsFromParameterScaling, StatsFromParameterScaling

__all__ = [
    "AffineRescaling",
    "ConstScaling",
    "ParameterFromRuntimeStatsScaling",
    "ParameterFromStatsFromParameterScaling",
    "ParameterScaling",
    "RuntimeStatsScaling",
    "Scaling",
    "StatsFromParameterScaling",
]
