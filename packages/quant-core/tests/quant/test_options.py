"""What options of named quantizers may not be: refused when the layer is built, by the text of each message."""

from typing import Any

import pytest
import torch
from torch import nn

from quant_core.components import ConstZeroPoint
from quant_core.errors import ConfigurationError, InputError, UnusedAttributeError
from quant_core.proxies import ActQuantProxyFromInjector, ClampQuantProxyFromInjector, WeightQuantProxyFromInjector
from quant_core.quant import (
    ClampTo16bit,
    Int8ActPerTensorFloat,
    Int8WeightPerTensorFloat,
    SignedBinaryWeightPerTensorConst,
)

WEIGHT = (WeightQuantProxyFromInjector, Int8WeightPerTensorFloat)
BINARY = (WeightQuantProxyFromInjector, SignedBinaryWeightPerTensorConst)
ACTIVATION = (ActQuantProxyFromInjector, Int8ActPerTensorFloat)
ACCUMULATOR = (ClampQuantProxyFromInjector, ClampTo16bit)
PER_CHANNEL = {"scaling_per_output_channel": True}

NARROW = (
    "narrow_range={!r} is neither True nor False",
    "it leaves out one level of the integer range, or does not\n  Set narrow_range to True or False.",
)
CLAMP = (
    "clamp_gradient={!r} is not known",
    "where a value is clamped its gradient stops, 'masked', or passes, 'pass'\n  Set clamp_gradient to 'masked' or 'pass'.",
)
CHANNELS = (
    "scaling_per_output_channel={!r} is neither True nor False",
    "there is one scale for each channel, or one for the tensor\n"
    '  Set it to True or False, or use the words scaling_per_output="channel" and "tensor".',
)
SHAPE = (
    "{!r} is not the shape of a scale",
    "it has one size for each axis of the tensor, counted from the last: whole numbers, at least 1\n"
    "  Use () per tensor or, for example, (1, channels, 1, 1) per channel.",
)
PERCENTILE = (
    "high_percentile_q={!r} is not a percentile",
    "a percentile lies above 0 and at most at 100\n"
    "  Use 99.999 to leave out outliers, or AbsMax for the largest value.",
)
MOMENTUM = (
    "scaling_stats_momentum={!r} is out of range",
    "the weight of the current step lies above 0 and at most at 1\n"
    "  Use a number such as 0.1, or None for the mean of all steps.",
)
START = (
    "scaling_init={!r} is not a scale",
    "a scale is positive and finite\n  Start from the largest absolute value that you expect.",
)


@pytest.mark.parametrize(
    ("kind", "name", "given", "beside", "text", "at"),
    [
        (WEIGHT, "narrow_range", "no", {}, NARROW, "tensor_quant"),
        (WEIGHT, "narrow_range", 1, {}, NARROW, "tensor_quant"),
        (ACCUMULATOR, "narrow_range", None, {}, NARROW, "tensor_quant"),
        (WEIGHT, "clamp_gradient", "mask", {}, CLAMP, "tensor_quant"),
        (ACTIVATION, "clamp_gradient", None, {}, CLAMP, "tensor_quant"),
        (WEIGHT, "scaling_per_output_channel", "tensor", {}, CHANNELS, "granularity"),
        (BINARY, "scaling_per_output_channel", None, {}, CHANNELS, "granularity"),
        (ACTIVATION, "scaling_per_output_channel", "no", {}, CHANNELS, "scaling_shape"),
        (ACTIVATION, "per_channel_broadcastable_shape", 8, PER_CHANNEL, SHAPE, "granularity"),
        (ACTIVATION, "per_channel_broadcastable_shape", None, PER_CHANNEL, SHAPE, "granularity"),
        (ACTIVATION, "per_channel_broadcastable_shape", (1, "C"), PER_CHANNEL, SHAPE, "granularity"),
        (ACTIVATION, "per_channel_broadcastable_shape", (1, -8), PER_CHANNEL, SHAPE, "granularity"),
        (ACTIVATION, "high_percentile_q", None, {}, PERCENTILE, "scaling_stats_impl"),
        (ACTIVATION, "high_percentile_q", "99", {}, PERCENTILE, "scaling_stats_impl"),
        (ACTIVATION, "scaling_stats_momentum", "0.1", {}, MOMENTUM, "scaling_impl"),
        (WEIGHT, "scaling_init", "0.1", {"scaling_impl_type": "const"}, START, "scaling_impl"),
        (WEIGHT, "scaling_init", [[1.0], [1.0, 2.0]], {"scaling_impl_type": "const"}, START, "scaling_impl"),
        (WEIGHT, "scaling_init", 0.0, {"scaling_impl_type": "parameter"}, START, "scaling_impl"),
    ],
)
def test_an_option_of_another_kind_is_refused(
    kind: tuple[Any, Any], name: str, given: object, beside: dict[str, Any], text: tuple[str, str], at: str
) -> None:
    proxy_class, quantizer = kind
    with pytest.raises(ConfigurationError) as caught:
        proxy_class(nn.Linear(8, 4), quantizer.let(**{name: given, **beside}))
    what, rest = text
    assert str(caught.value) == f"{what.format(given)}\n  at Linear: {at} of {quantizer.__name__}\n  {rest}"


@pytest.mark.parametrize("shape", [(3,), (2, 4, 8)])
def test_a_zero_point_that_does_not_fit_the_tensor_is_refused(shape: tuple[int, ...]) -> None:
    layer = nn.Linear(8, 4)
    fixed = Int8WeightPerTensorFloat.let(zero_point_impl=ConstZeroPoint, zero_point_init=torch.zeros(shape))
    proxy = WeightQuantProxyFromInjector(layer, fixed)
    with pytest.raises(InputError) as caught:
        proxy(layer.weight)
    assert str(caught.value) == (
        f"a zero-point of shape {shape} does not fit a tensor of shape (4, 8)\n"
        "  each axis of the zero-point is 1 or the size of the tensor's axis, counted from the last\n"
        "  Check which axis holds the channels: (1, C, 1, 1) for images, (1, C) after a linear layer."
    )


@pytest.mark.parametrize("quantizer", [Int8WeightPerTensorFloat, SignedBinaryWeightPerTensorConst])
def test_an_axis_of_channels_that_no_statistic_asks_for_is_refused(quantizer: Any) -> None:
    with pytest.raises(UnusedAttributeError) as caught:
        WeightQuantProxyFromInjector(nn.Linear(8, 4), quantizer.let(output_channel_dim=1), "weight_")
    assert str(caught.value).startswith("option 'weight_output_channel_dim' has no effect\n")
