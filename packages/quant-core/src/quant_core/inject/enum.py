"""The words of keyword shorthands as enumerations, for code that has them as such.

A member stands for the word that is its value, in any case: ``QuantType.INT`` for ``"int"``. Enumerations of other libraries
with such values are taken as well.

>>> QuantType.INT.value
'INT'
"""

from __future__ import annotations

from enum import StrEnum


class QuantType(StrEnum):
    """``quant_type``: which values a tensor is quantized to."""

    BINARY = "BINARY"
    TERNARY = "TERNARY"
    INT = "INT"
    FP = "FP"


class BitWidthImplType(StrEnum):
    """``bit_width_impl_type``: where the bit width comes from."""

    CONST = "CONST"
    PARAMETER = "PARAMETER"


class ScalingImplType(StrEnum):
    """``scaling_impl_type``: where the scale comes from."""

    HE = "HE"
    CONST = "CONST"
    STATS = "STATS"
    AFFINE_STATS = "AFFINE_STATS"
    PARAMETER = "PARAMETER"
    PARAMETER_FROM_STATS = "PARAMETER_FROM_STATS"


class ScalingPerOutputType(StrEnum):
    """``scaling_per_output``, or ``scaling_per_output_type``: which values share a scale."""

    TENSOR = "TENSOR"
    CHANNEL = "CHANNEL"
    GROUP = "GROUP"


class RestrictValueType(StrEnum):
    """``restrict_scaling_type``: which numbers a scale may be."""

    FP = "FP"
    LOG_FP = "LOG_FP"
    POWER_OF_TWO = "POWER_OF_TWO"
    INT = "INT"


class StatsOp(StrEnum):
    """``scaling_stats_op``: the statistic that a scale is computed from."""

    MAX = "MAX"
    AVE = "AVE"
    MAX_AVE = "MAX_AVE"
    MEAN_SIGMA_STD = "MEAN_SIGMA_STD"
    MEAN_LEARN_SIGMA_STD = "MEAN_LEARN_SIGMA_STD"
    PERCENTILE = "PERCENTILE"
    MIN_MAX = "MIN_MAX"
    PERCENTILE_INTERVAL = "PERCENTILE_INTERVAL"
    SIGNED_MAX = "SIGNED_MAX"


class FloatToIntImplType(StrEnum):
    """``float_to_int_impl_type``: how to round."""

    ROUND = "ROUND"
    CEIL = "CEIL"
    FLOOR = "FLOOR"
    ROUND_TO_ZERO = "ROUND_TO_ZERO"
    DPU = "DPU"
    STOCHASTIC_ROUND = "STOCHASTIC_ROUND"
