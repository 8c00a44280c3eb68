"""Shifting, rounding and saturating integers, and averaging without division."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from export_dpu.arithmetic import saturate, shift, to_integers, to_real
from export_dpu.averaging import average_factor
from quant_core.ops import round_to_integer

MODES = ("DPU", "HALF_UP", "ROUND")


@given(st.lists(st.integers(-(2**40), 2**40), min_size=1), st.integers(1, 50), st.sampled_from(MODES))
def test_a_shift_to_the_right_rounds_as_real_numbers_are_rounded(numbers: list[int], bits: int, mode: str) -> None:
    x = torch.tensor(numbers)
    wanted = round_to_integer(torch.ldexp(x.to(torch.float64), torch.tensor(-bits)), mode)
    assert torch.equal(shift(x, bits, mode), wanted.to(torch.int64))


@given(st.integers(-(2**62) + 1, 2**62 - 1), st.integers(63, 200), st.sampled_from(MODES))
def test_what_is_shifted_out_entirely_is_zero(number: int, bits: int, mode: str) -> None:
    assert int(shift(torch.tensor([number]), bits, mode)) == 0


@given(st.integers(-(2**62), 2**62), st.integers(0, 80), st.sampled_from(MODES))
def test_a_shift_to_the_left_saturates_where_the_exact_one_does(number: int, bits: int, mode: str) -> None:
    exact = max(-128, min(127, number * 2**bits))
    assert int(saturate(shift(torch.tensor([number]), -bits, mode))) == exact


@given(st.integers(-128, 127), st.integers(-40, 40), st.sampled_from(MODES))
def test_integers_are_what_their_real_numbers_give(integer: int, position: int, mode: str) -> None:
    real = to_real(torch.tensor([integer]), position)
    assert Fraction(real.item()) == Fraction(integer) / Fraction(2) ** position
    assert int(to_integers(real, position, mode)) == integer


@pytest.mark.parametrize("mode", MODES)
def test_real_numbers_saturate(mode: str) -> None:
    assert to_integers(torch.tensor([-1e30, 1e30, 127.4, -128.5]), 0, mode).tolist() == [-128, 127, 127, -128]


@given(st.integers(1, 64), st.integers(1, 64))
def test_a_factor_is_near_to_that_of_the_mean(height: int, width: int) -> None:
    multiplier, bits = average_factor((height, width))
    assert abs(multiplier / 2**bits * height * width - 1) < 1 / 40


@given(st.integers(0, 6), st.integers(0, 6))
def test_a_window_of_a_power_of_two_is_averaged_exactly(one: int, other: int) -> None:
    assert average_factor((2**one, 2**other)) == (1, one + other)


@given(st.integers(2, 30), st.integers(2, 30))
def test_no_other_factor_of_so_many_bits_is_nearer(height: int, width: int) -> None:
    count = height * width
    multiplier, bits = average_factor((height, width))
    if (height, width) in {(3, 3), (5, 5), (6, 6), (3, 6), (6, 3), (7, 7), (14, 14)}:
        return  # these are what the hardware has
    error = abs(Fraction(multiplier, 2**bits) - Fraction(1, count))
    for shorter in range(math.ceil(math.log2(128 * count))):
        for near in (2**shorter // count, 2**shorter // count + 1):
            assert error <= abs(Fraction(near, 2**shorter) - Fraction(1, count))


def test_the_factors_of_the_hardware() -> None:
    """As Vitis AI's quantizers publish them."""
    found = {size: average_factor((size, size)) for size in (3, 5, 6, 7, 14)}
    assert found == {3: (7, 6), 5: (10, 8), 6: (7, 8), 7: (21, 10), 14: (21, 12)}
    assert average_factor((3, 6)) == average_factor((6, 3)) == (7, 7)
