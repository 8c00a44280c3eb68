"""Rounding modes: laws that define each, and the values that separate them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quant_core.errors import ConfigurationError
from quant_core.ops import ROUNDING_MODES, round_to_integer
from quant_core.ops.rounding import check_rounding_mode

floats = st.floats(-1e6, 1e6, width=32)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("ROUND", [-2.0, -0.0, 0.0, 2.0, 2.0]),
        ("HALF_UP", [-2.0, 0.0, 1.0, 2.0, 2.0]),
        ("FLOOR", [-3.0, -1.0, 0.0, 1.0, 1.0]),
        ("CEIL", [-2.0, 0.0, 1.0, 2.0, 2.0]),
        ("TO_ZERO", [-2.0, 0.0, 0.0, 1.0, 1.0]),
    ],
)
def test_values_that_separate_the_modes(mode: str, expected: list[float]) -> None:
    x = torch.tensor([-2.5, -0.5, 0.5, 1.5, 1.7])
    assert round_to_integer(x, mode).tolist() == expected


@given(floats, st.sampled_from(ROUNDING_MODES))
def test_the_result_is_an_integer_at_most_one_away(value: float, mode: str) -> None:
    x = torch.tensor(value)
    rounded = round_to_integer(x, mode)
    assert rounded == torch.floor(rounded)
    assert (rounded - x).abs() <= 1


@given(st.lists(floats, min_size=2, max_size=8), st.sampled_from(ROUNDING_MODES))
def test_rounding_is_monotone_and_idempotent(values: list[float], mode: str) -> None:
    rounded = round_to_integer(torch.tensor(sorted(values)), mode)
    assert torch.all(rounded[1:] >= rounded[:-1])
    assert torch.equal(round_to_integer(rounded, mode), rounded)


@given(floats)
def test_half_up_rounds_to_the_nearest_for_every_float(value: float) -> None:
    exact = np.floor(np.float64(np.float32(value)) + 0.5)
    assert round_to_integer(torch.tensor(value), "HALF_UP").item() == exact


def test_half_up_of_the_largest_float_below_one_half_is_zero() -> None:
    below = torch.nextafter(torch.tensor(0.5), torch.tensor(0.0))
    assert round_to_integer(below, "HALF_UP").item() == 0.0


def test_an_unknown_mode_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_rounding_mode("half_upp")
    assert str(caught.value) == (
        "unknown rounding_mode 'half_upp'\n"
        "  a rounding mode is one of ROUND, HALF_UP, DPU, FLOOR, CEIL, TO_ZERO\n"
        "  Did you mean 'HALF_UP'?"
    )
