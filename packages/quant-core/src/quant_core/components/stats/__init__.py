"""Statistics of a tensor that a scale or a zero-point is computed from."""

from quant_core.components.stats.channels import AbsMaxAve, AbsMaxL2
from quant_core.components.stats.extrema import AbsMax, AbsMinMax, NegativeMinOrZero, SignedAbsMax
from quant_core.components.stats.moments import AbsAve, Mean, MeanLearnedSigmaStd, MeanSigmaStd
from quant_core.components.stats.norms import L1Norm, L2Norm
from quant_core.components.stats.percentile import AbsPercentile, NegativePercentileOrZero, PercentileInterval
from quant_core.components.stats.statistic import Grouping, Statistic, check_finite

__all__ = [
    "AbsAve",
    "AbsMax",
    "AbsMaxAve",
    "AbsMaxL2",
    "AbsMinMax",
    "AbsPercentile",
    "Grouping",
    "L1Norm",
    "L2Norm",
    "Mean",
    "MeanLearnedSigmaStd",
    "MeanSigmaStd",
    "NegativeMinOrZero",
    "NegativePercentileOrZero",
    "PercentileInterval",
    "SignedAbsMax",
    "Statistic",
    "check_finite",
]
