"""A threshold that is taken stands where a collected one would."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quant_core.components import (
    AbsMax,
    ConstScaling,
    FloatRestriction,
    LogFloatRestriction,
    ParameterFromRuntimeStatsScaling,
    ParameterScaling,
    PowerOfTwoRestriction,
    RuntimeStatsScaling,
)
from quant_core.components.step_counter import StepCounter

RESTRICTIONS = st.sampled_from([FloatRestriction, LogFloatRestriction, PowerOfTwoRestriction])


@given(st.floats(1e-3, 1e3), RESTRICTIONS)
def test_a_taken_threshold_is_one_that_one_step_has_collected(threshold: float, restriction: type) -> None:
    x = torch.tensor([threshold, -threshold / 2])
    collected = ParameterFromRuntimeStatsScaling(AbsMax(), collect_stats_steps=1, restrict_scaling_impl=restriction())
    taken = ParameterFromRuntimeStatsScaling(AbsMax(), collect_stats_steps=1, restrict_scaling_impl=restriction())
    collected(x)
    taken.take_threshold(x[0])
    assert all(torch.equal(taken.state_dict()[key], tensor) for key, tensor in collected.state_dict().items())
    assert torch.equal(taken(9 * x), collected(9 * x))
    assert not taken.reads_input


def test_the_parameter_stays_the_same_object() -> None:
    scaling = ParameterFromRuntimeStatsScaling(AbsMax())
    parameter = scaling.value
    scaling.take_threshold(torch.tensor(3.0, dtype=torch.float64))
    assert scaling.value is parameter
    assert parameter.item() == 3.0
    assert parameter.dtype == torch.float32


def test_a_scaling_that_follows_each_batch_takes_it_for_eval_mode() -> None:
    scaling = RuntimeStatsScaling(AbsMax(), scaling_stats_momentum=None)
    scaling.take_threshold(torch.tensor(3.0))
    assert scaling.eval()(torch.ones(1)) == 3.0
    assert scaling.train()(torch.tensor([5.0])) == 5.0
    assert scaling.eval()(torch.ones(1)) == 4.0  # the mean of the two


@pytest.mark.parametrize(
    "make", [lambda: ParameterFromRuntimeStatsScaling(AbsMax(), 2), lambda: RuntimeStatsScaling(AbsMax())]
)
def test_what_it_says_of_itself(make: object) -> None:
    scaling = make()
    assert (scaling.calibratable, scaling.awaits_data, scaling.calibrated) == (True, True, False)
    scaling.take_threshold(torch.tensor(1.0))
    assert (scaling.awaits_data, scaling.calibrated) == (False, True)


def test_half_of_the_steps_are_data_but_not_all() -> None:
    scaling = ParameterFromRuntimeStatsScaling(AbsMax(), collect_stats_steps=2)
    scaling(torch.ones(3))
    assert (scaling.awaits_data, scaling.calibrated) == (False, False)


@pytest.mark.parametrize("scaling", [ConstScaling(1.0), ParameterScaling(1.0)])
def test_others_do_not_take_one(scaling: ConstScaling) -> None:
    assert (scaling.calibratable, scaling.awaits_data) == (False, False)
    with pytest.raises(NotImplementedError, match="takes no threshold from data"):
        scaling.take_threshold(torch.tensor(1.0))


def test_a_counter_without_limit_has_no_end_to_go_to() -> None:
    counter = StepCounter(None)
    counter.finish()
    assert counter.running
