"""The table from keywords and words to what they stand for, as data. Imports nothing heavy.

The words are those of Brevitas, which users have in their code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from quant_core.plugins import Shorthand

_COMPONENTS: Final = "quant_core.components"
_COMPUTED: Final = "quant_core.shorthand.computed"

_SHAPE: Final = {"scaling_shape": f"{_COMPUTED}:scaling_shape"}
"""A scale of a weight that is given has as many numbers as one that is computed from it."""


def _component(attribute: str, name: str) -> dict[str, str]:
    return {attribute: f"{_COMPONENTS}:{name}"}


def _one(name: str, summary: str, sets: Mapping[str, Any], along: Mapping[str, Any] | None = None) -> Shorthand:
    """The same in quantizers of every kind."""
    return Shorthand(name=name, summary=summary, sets=sets, along=along or {})


_QUANT_TYPE: Final = (
    Shorthand(
        name="quant_type=int",
        summary="integers",
        weight=_component("tensor_quant", "IntQuant"),
        activation=_component("tensor_quant", "IntQuant"),
        bias=_component("tensor_quant", "PrescaledIntQuant"),
    ),
    Shorthand(
        name="quant_type=binary",
        summary="two values; activations stop the gradient beyond the scale",
        weight=_component("tensor_quant", "BinaryQuant"),
        activation=_component("tensor_quant", "ClampedBinaryQuant"),
    ),
    Shorthand(
        name="quant_type=ternary",
        summary="three values, with a threshold",
        weight=_component("tensor_quant", "TernaryQuant"),
        activation=_component("tensor_quant", "TernaryQuant"),
    ),
    _one("quant_type=fp", "floats, not quantized", {"tensor_quant": None}),
)

_BIT_WIDTH: Final = (
    _one("bit_width_impl_type=const", "fixed", _component("bit_width_impl", "ConstBitWidth")),
    _one("bit_width_impl_type=parameter", "learned", _component("bit_width_impl", "ParameterBitWidth")),
)

_SCALING: Final = (
    Shorthand(
        name="scaling_impl_type=const",
        summary="fixed",
        weight=_component("scaling_impl", "ConstScaling"),
        activation=_component("scaling_impl", "ConstScaling"),
        along=_SHAPE,
    ),
    Shorthand(
        name="scaling_impl_type=parameter",
        summary="learned",
        weight=_component("scaling_impl", "ParameterScaling"),
        activation=_component("scaling_impl", "ParameterScaling"),
        along=_SHAPE,
    ),
    Shorthand(
        name="scaling_impl_type=stats",
        summary="a statistic: of the weight at each step, of activations as batch norm does it",
        weight=_component("scaling_impl", "StatsFromParameterScaling"),
        activation=_component("scaling_impl", "RuntimeStatsScaling"),
    ),
    Shorthand(
        name="scaling_impl_type=affine_stats",
        summary="the same with a learned weight and bias",
        weight=_component("scaling_impl", "StatsFromParameterScaling"),
        activation=_component("scaling_impl", "RuntimeStatsScaling"),
        along={"scaling_affine_rescaling_init": 1.0, "scaling_affine_shifting_init": 0.0},
    ),
    Shorthand(
        name="scaling_impl_type=parameter_from_stats",
        summary="learned; starts from a statistic: of the weight, of the first activations",
        weight=_component("scaling_impl", "ParameterFromStatsFromParameterScaling"),
        activation=_component("scaling_impl", "ParameterFromRuntimeStatsScaling"),
    ),
    Shorthand(
        name="scaling_impl_type=he",
        summary="fixed, at the standard deviation that He's initialisation gives the weight",
        weight={**_component("scaling_impl", "ConstScaling"), "scaling_init": f"{_COMPUTED}:he_deviation"},
        along=_SHAPE,
    ),
    Shorthand(
        name="scaling_const",
        summary="the threshold of a weight that is fixed or learned",
        weight={"scaling_init": f"{_COMPUTED}:scaling_const"},
    ),
    Shorthand(
        name="max_val",
        summary="the largest value expected; learning starts there, unless scaling_impl_type says otherwise",
        activation={"scaling_init": f"{_COMPUTED}:largest_magnitude"},
        along=_component("scaling_impl", "ParameterScaling"),
    ),
    Shorthand(
        name="min_val",
        summary="the smallest value expected, as max_val",
        activation={"scaling_init": f"{_COMPUTED}:largest_magnitude"},
        along=_component("scaling_impl", "ParameterScaling"),
    ),
)

_RESTRICTION: Final = tuple(
    Shorthand(
        name=f"restrict_scaling_type={word}",
        summary=summary,
        weight=_component("restrict_scaling_impl", name),
        activation=_component("restrict_scaling_impl", name),
        along=along,
    )
    for word, summary, name, along in (
        ("fp", "any positive scale", "FloatRestriction", {}),
        ("log_fp", "the same, learned as a logarithm", "LogFloatRestriction", {}),
        ("power_of_two", "the nearest power of two", "PowerOfTwoRestriction", {"restrict_rounding_mode": "ROUND"}),
        ("int", "thresholds that are whole numbers, rounded up", "IntRestriction", {}),
    )
)

_GRANULARITY: Final = tuple(
    Shorthand(name=f"{keyword}={word}", summary=summary, sets=sets, weight=weight)
    for keyword in ("scaling_per_output", "scaling_per_output_type")
    for word, summary, sets, weight in (
        ("tensor", "one scale", {"scaling_per_output_channel": False}, {}),
        ("channel", "a scale for each channel", {"scaling_per_output_channel": True}, {}),
        (
            "group",
            "a scale for each group_size neighbours among the input channels",
            {},
            {"granularity": f"{_COMPUTED}:groups"},
        ),
    )
)
"""Either keyword: users have the one or the other in their code."""

_STATISTICS: Final = tuple(
    _one(f"scaling_stats_op={word}", summary, _component("scaling_stats_impl", name))
    for word, summary, name in (
        ("max", "the largest absolute value", "AbsMax"),
        ("ave", "the mean absolute value", "AbsAve"),
        (
            "max_ave",
            "the mean over the channels of their largest absolute values, with output_channel_dim",
            "AbsMaxAve",
        ),
        ("mean_sigma_std", "mean + sigma · deviation of the absolute values", "MeanSigmaStd"),
        ("mean_learn_sigma_std", "the same with a learned sigma", "MeanLearnedSigmaStd"),
        ("percentile", "a percentile of the absolute values", "AbsPercentile"),
        ("min_max", "the distance between the smallest and the largest value", "AbsMinMax"),
        ("percentile_interval", "the distance between two percentiles", "PercentileInterval"),
        ("signed_max", "the value with the largest magnitude, with its sign", "SignedAbsMax"),
    )
)

_ROUNDING: Final = (
    *(
        _one(f"float_to_int_impl_type={word}", summary, {"rounding_mode": mode})
        for word, summary, mode in (
            ("round", "to the nearest integer, ties to even", "ROUND"),
            ("floor", "down", "FLOOR"),
            ("ceil", "up", "CEIL"),
            ("round_to_zero", "towards zero", "TO_ZERO"),
            ("dpu", "ties upwards for negative numbers, to even for others", "DPU"),
        )
    ),
    Shorthand(
        name="float_to_int_impl_type=stochastic_round",
        summary="up or down at random, right on average",
        weight=_component("rounding_impl", "StochasticRounding"),
        activation=_component("rounding_impl", "StochasticRounding"),
    ),
)

SHORTHANDS: Final[tuple[Shorthand, ...]] = (
    *_QUANT_TYPE,
    *_BIT_WIDTH,
    *_SCALING,
    *_RESTRICTION,
    *_GRANULARITY,
    *_STATISTICS,
    *_ROUNDING,
)
"""All shorthands of quant-core."""
