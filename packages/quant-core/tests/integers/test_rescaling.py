"""Rescaling is exact: the same integers as with fractions of any size."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quant_core.integers.carried import common_unit, float32_of, fractions
from quant_core.integers.rescaling import TooWideError, rescaling, round_fraction
from quant_core.ops import ROUNDING_MODES, round_to_integer

SCALES = st.floats(2.0**-20, 2.0**-2, width=32)
STEPS = st.floats(2.0**-8, 2.0**4, width=32)
POWERS = st.integers(-12, 4).map(lambda exponent: 2.0**exponent)
LEVELS = st.integers(-(2**24), 2**24)
modes = pytest.mark.parametrize("mode", ROUNDING_MODES)


def nearest(value: Fraction, mode: str) -> int:
    """Rounding as the table of modes says it, on fractions."""
    below = math.floor(value)
    rest = value - below
    half = Fraction(1, 2)
    to_even = below + (rest > half or (rest == half and below % 2))
    up = below + (rest >= half)
    return int(
        {
            "FLOOR": below,
            "CEIL": math.ceil(value),
            "TO_ZERO": math.trunc(value),
            "ROUND": to_even,
            "HALF_UP": up,
            "DPU": up if value < 0 else to_even,
        }[mode]
    )


@modes
@given(SCALES, STEPS, st.integers(-300, 300), st.lists(LEVELS, min_size=1, max_size=8))
def test_any_two_scales(mode: str, one: float, other: float, zero_point: int, levels: list[int]) -> None:
    factor, offset = Fraction(one) / Fraction(other), Fraction(zero_point)
    found = rescaling([factor], [offset], [(-(2**24), 2**24)]).rounded(torch.tensor(levels), mode)
    assert found.tolist() == [nearest(level * factor + offset, mode) for level in levels]


@modes
@given(POWERS, st.lists(st.integers(-64, 64), min_size=1, max_size=8), st.integers(-9, 9))
def test_ties_of_powers_of_two(mode: str, factor: float, levels: list[int], halves: int) -> None:
    exact, offset = Fraction(factor), Fraction(halves, 2)
    found = rescaling([exact], [offset], [(-64, 64)]).rounded(torch.tensor(levels), mode)
    assert found.tolist() == [nearest(level * exact + offset, mode) for level in levels]
    floats = torch.tensor([float(level * exact + offset) for level in levels])
    assert found.tolist() == round_to_integer(floats, mode).to(torch.int64).tolist()  # floats hold these numbers


@modes
@given(SCALES, STEPS, st.floats(-1e3, 1e3, width=32), st.lists(LEVELS, min_size=1, max_size=8))
def test_a_bias_of_any_size_costs_no_precision(
    mode: str, one: float, other: float, bias: float, levels: list[int]
) -> None:
    """Its denominator may be that of the smallest float: only on which side of a border it lies counts."""
    factor, offset = Fraction(one) / Fraction(other), Fraction(bias) / Fraction(other)
    found = rescaling([factor], [offset], [(-(2**24), 2**24)]).rounded(torch.tensor(levels), mode)
    assert found.tolist() == [nearest(level * factor + offset, mode) for level in levels]


def test_a_bias_a_hair_above_the_border_is_no_tie() -> None:
    hair = Fraction(1, 2**140)
    rows = [rescaling([Fraction(1)], [Fraction(1, 2) + shift], [(0, 4)]) for shift in (-hair, Fraction(0), hair)]
    q = torch.arange(5)
    assert [row.rounded(q, "ROUND").tolist() for row in rows] == [[0, 1, 2, 3, 4], [0, 2, 2, 4, 4], [1, 2, 3, 4, 5]]


def test_channels_have_numbers_of_their_own() -> None:
    found = rescaling([Fraction(1, 2), Fraction(3)], [Fraction(0)], [(-9, 9), (-9, 9)])
    assert found.rounded(torch.tensor([[3, 3], [-3, -3]]), "FLOOR").tolist() == [[1, 9], [-2, -9]]


def test_a_channel_without_weights_is_a_constant_whatever_its_scale() -> None:
    found = rescaling([Fraction(1, 2**100)], [Fraction(7, 2)], [(0, 0)])
    assert found.rounded(torch.zeros(2, dtype=torch.int64), "ROUND").tolist() == [4, 4]


@pytest.mark.parametrize(
    ("factor", "bounds"), [(Fraction(1, 2**70), (0, 1)), (Fraction(2**40), (0, 2**30)), (Fraction(1, 3), (0, 2**61))]
)
def test_what_does_not_fit_is_refused(factor: Fraction, bounds: tuple[int, int]) -> None:
    with pytest.raises(TooWideError):
        rescaling([factor], [Fraction(0)], [bounds])


@given(st.lists(st.integers(-50, 50), min_size=1))
def test_signs_and_ternary_levels(levels: list[int]) -> None:
    found = rescaling([Fraction(1, 8)], [Fraction(1, 2)], [(-50, 50)])
    q = torch.tensor(levels)
    values = [Fraction(level, 8) + Fraction(1, 2) for level in levels]
    assert found.sign(q).tolist() == [1 if value >= 0 else -1 for value in values]
    assert found.ternary(q).tolist() == [(value > 1) - (value < -1) for value in values]


@modes
@given(st.fractions(-50, 50, max_denominator=64))
def test_one_number(mode: str, value: Fraction) -> None:
    assert round_fraction(value, mode) == nearest(value, mode)


@given(st.lists(SCALES, min_size=1, max_size=4))
def test_the_common_unit_divides_all_scales(scales: list[float]) -> None:
    exact = fractions(torch.tensor(scales, dtype=torch.float64))
    unit = common_unit(exact)
    quotients = [scale / unit for scale in exact]
    assert all(quotient.denominator == 1 for quotient in quotients)
    assert math.gcd(*(int(quotient) for quotient in quotients)) == 1


@given(SCALES, SCALES)
def test_scales_are_multiplied_as_the_model_does(one: float, other: float) -> None:
    product = torch.tensor(one) * torch.tensor(other)
    assert float(float32_of(Fraction(one) * Fraction(other))) == product.item()
