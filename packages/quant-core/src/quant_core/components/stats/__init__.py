"""Statistics of a tensor that a scale or a zero-point is computed from."""

from quant_core.components.stats.channels import AbsMaxAve, AbsMaxL2
from quant_core.components.stats.extrema import AbsMax, AbsMinMax, NegativeMinOrZero, SignedAbsMax
from quant_core.components.stats.grid_search import GridSearch
from quant_core.components.stats.half_quadratic import HalfQuadraticOptimizerZeroPoint
from quant_core.components.stats.half_quadratic_scale import HalfQuadraticOptimizerScale
from quant_core.components.stats.mean_squared_error import MSE, MSEZeroPoint
from quant_core.components.stats.moments import AbsAve, Mean, MeanLearnedSigmaStd, MeanSigmaStd
from quant_core.components.stats.norms import L1Norm, L2Norm
from quant_core.components.stats.percentile import AbsPercentile, NegativePercentileOrZero, PercentileInterval
from quant_core.components.stats.statistic import Grouping, Statistic, check_finite, check_finite_at_each_step
from quant_core.components.stats.weights import joined_rows

__all__ = [
    "MSE",
    "AbsAve",
    "AbsMax",
    "AbsMaxAve",
    "AbsMaxL2",
    "AbsMinMax",
    "AbsPercentile",
    "GridSearch",
    "Grouping",
    "HalfQuadraticOptimizerScale",
    "HalfQuadraticOptimizerZeroPoint",
    "L1Norm",
    "L2Norm",
    "MSEZeroPoint",
    "Mean",
    "MeanLearnedSigmaStd",
    "MeanSigmaStd",
    "NegativeMinOrZero",
    "NegativePercentileOrZero",
    "PercentileInterval",
    "SignedAbsMax",
    "Statistic",
    "check_finite",
    "check_finite_at_each_step",
    "joined_rows",
]
