"""Restrictions of a scale: idempotent, monotone, straight through; and what a threshold is divided by."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from quant_core.components import (
    AbsMax,
    ConstBitWidth,
    ConstScaling,
    FloatRestriction,
    IntQuant,
    IntRestriction,
    IntScaling,
    LogFloatRestriction,
    ParameterScaling,
    PowerOfTwoIntScaling,
    PowerOfTwoRestriction,
    Restriction,
    StatsFromParameterScaling,
)
from quant_core.errors import ConfigurationError

MODES = ("CEIL", "FLOOR", "ROUND")
ALL = [
    FloatRestriction(),
    LogFloatRestriction(),
    *(kind(mode) for kind in (PowerOfTwoRestriction, IntRestriction) for mode in MODES),
]
restrictions = st.sampled_from(ALL)
thresholds = st.floats(1, 2.0**20, width=32)


def restricted(restriction: Restriction, threshold: float) -> float:
    return restriction.of_threshold(torch.tensor(threshold)).item()


@given(restrictions, thresholds)
def test_restricting_twice_is_restricting_once(restriction: Restriction, threshold: float) -> None:
    once = restricted(restriction, threshold)
    assert restricted(restriction, once) == pytest.approx(once, rel=1e-6)
    if not isinstance(restriction, LogFloatRestriction):
        assert restricted(restriction, once) == once


@given(restrictions, thresholds, thresholds)
def test_a_larger_threshold_does_not_get_smaller(restriction: Restriction, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert restricted(restriction, low) <= restricted(restriction, high)


@given(st.sampled_from(MODES), st.floats(2.0**-60, 2.0**60, width=32))
def test_powers_of_two_lie_where_the_rounding_says(mode: str, threshold: float) -> None:
    found = restricted(PowerOfTwoRestriction(mode), threshold)
    assert math.frexp(found)[0] == 0.5
    low, high = {"CEIL": (1, 2), "FLOOR": (0.5, 1), "ROUND": (2**-0.5, 2**0.5)}[mode]
    assert low * (1 - 1e-6) <= found / threshold <= high * (1 + 1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_powers_of_two_stay_what_they_are(mode: str) -> None:
    """To the bit, over the whole range: a logarithm that is off by its last bit would double the scale."""
    powers = torch.ldexp(torch.ones(181), torch.arange(-90, 91))
    assert torch.equal(PowerOfTwoRestriction(mode).of_threshold(powers), powers)
    assert all(restricted(PowerOfTwoRestriction(mode), power) == power for power in powers.tolist())


@given(restrictions, thresholds)
def test_the_gradient_goes_straight_through_rounding(restriction: Restriction, start: float) -> None:
    parameter = restriction.parameter_for(torch.tensor(start)).requires_grad_()
    out = restriction(parameter)
    out.backward()
    log = isinstance(restriction, LogFloatRestriction | PowerOfTwoRestriction)
    assert parameter.grad.item() == pytest.approx(math.log(2) * out.item() if log else 1.0, rel=1e-5)


@pytest.mark.parametrize("restriction", ALL, ids=str)
def test_a_learned_threshold_is_positive_wherever_training_takes_it(restriction: Restriction) -> None:
    scaling = ParameterScaling(1.0, restrict_scaling_impl=restriction)
    for value in (-200.0, -1.0, 0.0, 1e-30):
        with torch.no_grad():
            scaling.value.fill_(value)
        scaling.zero_grad()
        threshold = scaling(torch.ones(1))
        threshold.backward()
        assert threshold.item() > 0
        assert threshold.item() / 2.0**31 > 0
        assert torch.isfinite(scaling.value.grad)


@pytest.mark.parametrize("restriction", ALL, ids=str)
def test_a_minimum_is_restricted_like_the_threshold(restriction: Restriction) -> None:
    bounds = {"scaling_min_val": 5.0, "restrict_scaling_impl": restriction}
    wanted = pytest.approx(restricted(restriction, 5.0))
    learned = ParameterScaling(1.0, **bounds)
    stats = StatsFromParameterScaling(AbsMax(), nn.Linear(1, 1), **bounds)
    assert learned(torch.ones(1)).item() == wanted
    assert stats(torch.ones(1)).item() == wanted
    assert ConstScaling(1.0, **bounds)(torch.ones(1)).item() == wanted


def test_whole_numbers_are_at_least_one() -> None:
    for mode in MODES:
        assert ConstScaling(0.2, restrict_scaling_impl=IntRestriction(mode))(torch.ones(1)).item() == 1


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("learns", [False, True])
def test_a_scale_of_integers_is_a_power_of_two_as_the_threshold_is(signed: bool, learns: bool) -> None:
    kind = ParameterScaling if learns else ConstScaling
    quant = IntQuant(kind(3.0, restrict_scaling_impl=PowerOfTwoRestriction()), ConstBitWidth(8), signed=signed)
    assert isinstance(quant.int_scaling_impl, PowerOfTwoIntScaling)
    assert quant(torch.ones(1))[1].item() == (4 / 128 if signed else 4 / 256)


def test_what_the_threshold_is_divided_by_can_be_given() -> None:
    quant = IntQuant(ConstScaling(1.0), ConstBitWidth(4), signed=False, int_scaling_impl=PowerOfTwoIntScaling(False))
    assert quant(torch.ones(1))[1].item() == 1 / 16
    assert quant(torch.ones(1))[0].item() == 15 / 16


@pytest.mark.parametrize("signed", [False, True])
def test_the_bit_width_gets_the_gradient_of_the_largest_integer(signed: bool) -> None:
    for scaling in (IntScaling(signed), PowerOfTwoIntScaling(signed)):
        bits = torch.tensor(6.0, requires_grad=True)
        scaling(bits).backward()
        assert bits.grad.item() == pytest.approx(math.log(2) * 2 ** (5 if signed else 6), rel=1e-5)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: PowerOfTwoRestriction("UP"),
            "unknown rounding_mode 'UP'",
        ),
        (
            lambda: IntQuant(
                ConstScaling(1.0, restrict_scaling_impl=PowerOfTwoRestriction()),
                ConstBitWidth(8),
                signed=True,
                int_scaling_impl=IntScaling(True, True),
            ),
            "PowerOfTwoRestriction has no effect together with int_scaling_impl=IntScaling\n"
            "  a power of two divided by the largest integer, such as 127, is no power of two\n"
            "  Leave int_scaling_impl out, or restrict_scaling_impl.",
        ),
        (
            lambda: ParameterScaling(1.0, scaling_min_val=-1.0),
            "scaling_min_val=-1.0 is out of range\n"
            "  it is the smallest threshold, a finite number that is not negative\n"
            "  Use a number such as 1e-10, or None.",
        ),
        (
            lambda: ParameterScaling(1.0, scaling_min_val=True),
            "scaling_min_val=True is out of range\n"
            "  it is the smallest threshold, a finite number that is not negative\n"
            "  Use a number such as 1e-10, or None.",
        ),
    ],
)
def test_what_is_refused_and_what_it_says(build: object, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        build()
    assert str(caught.value).startswith(message)
    assert "\n" not in message or str(caught.value) == message


def test_a_base_says_what_is_missing() -> None:
    with pytest.raises(NotImplementedError, match=r"^Restriction must define forward\(parameter\)$"):
        Restriction()(torch.ones(1))
    with pytest.raises(NotImplementedError, match=r"^Restriction must define parameter_for\(threshold\)$"):
        Restriction().parameter_for(torch.ones(1))
