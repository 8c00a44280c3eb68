"""Scales: constant, learned, from statistics; the state machine of the one that collects first and learns later."""

import copy
import io

import pytest
import torch
import torch._dynamo.testing
from torch import nn

from quant_core.components import (
    AbsMax,
    ConstScaling,
    ParameterFromRuntimeStatsScaling,
    ParameterScaling,
    StatsFromParameterScaling,
)
from quant_core.errors import ConfigurationError, InputError

BATCHES = [torch.tensor([1.0, -2.0]), torch.tensor([4.0, 0.5]), torch.tensor([-3.0, 1.0]), torch.tensor([9.0, 1.0])]


def collecting(steps: int = 3, **options: float) -> ParameterFromRuntimeStatsScaling:
    return ParameterFromRuntimeStatsScaling(AbsMax(), collect_stats_steps=steps, **options)


def test_while_collecting_the_threshold_is_the_statistic_and_the_value_follows_it() -> None:
    scaling = collecting(3, scaling_stats_momentum=0.1)
    thresholds = [scaling(batch).item() for batch in BATCHES]
    followed = [2.0, 0.9 * 2 + 0.1 * 4]
    followed.append(0.9 * followed[1] + 0.1 * 3)
    assert thresholds[:3] == [2, 4, 3]
    assert thresholds[3] == pytest.approx(followed[2])
    assert scaling.value.item() == pytest.approx(followed[2])


def test_the_statistic_passes_its_gradient_and_the_parameter_gets_none_before_it_is_used() -> None:
    scaling = collecting(1)
    x = BATCHES[0].clone().requires_grad_()
    scaling(x).backward()
    assert x.grad.tolist() == [0, -1]
    assert scaling.value.grad is None
    scaling(x).backward()
    assert x.grad.tolist() == [0, -1]
    assert scaling.value.grad.item() == 1


def test_eval_mode_uses_the_value_as_it_stands_and_counts_nothing() -> None:
    scaling = collecting(3)
    assert scaling.eval()(BATCHES[1]).item() == 1
    scaling.train()(BATCHES[0])
    assert scaling.eval()(BATCHES[1]).item() == 2
    assert scaling.collected.count.item() == 1


@pytest.mark.parametrize("stop", range(5))
def test_training_resumes_at_any_step_as_if_it_had_not_stopped(stop: int) -> None:
    straight = collecting(3)
    for batch in BATCHES[:stop]:
        straight(batch)
    file = io.BytesIO()
    torch.save(straight.state_dict(), file)
    file.seek(0)
    resumed = collecting(3)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for batch in BATCHES:
        assert torch.equal(straight(batch), resumed(batch))
    assert torch.equal(straight.value, resumed.value)


def test_compiled_training_goes_through_the_same_states_without_a_recompile_at_each_step() -> None:
    torch._dynamo.reset()
    eager = collecting(3)
    module = copy.deepcopy(eager)
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(module, fullgraph=True, backend=counter)
    for batch in [*BATCHES, *BATCHES]:
        torch.testing.assert_close(compiled(batch), eager(batch), rtol=0, atol=0)
    assert counter.frame_count == 1
    compiled.train()
    torch.testing.assert_close(compiled(BATCHES[0]), eager(BATCHES[0]), rtol=0, atol=0)
    assert counter.frame_count == 2
    assert not module.collected.running


def test_compiled_gradients_reach_the_statistic_first_and_the_parameter_later() -> None:
    torch._dynamo.reset()
    module = collecting(1)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    x = BATCHES[0].clone().requires_grad_()
    compiled(x).backward()
    assert x.grad.tolist() == [0, -1]
    assert not module.value.grad
    compiled(x).backward()
    assert x.grad.tolist() == [0, -1]
    assert module.value.grad.item() == 1


def test_the_minimum_holds_and_lets_the_gradient_through() -> None:
    scaling = ParameterScaling(0.5, scaling_min_val=0.1)
    with torch.no_grad():
        scaling.value.fill_(0.03)
    threshold = scaling(torch.ones(1))
    threshold.backward()
    assert threshold.item() == pytest.approx(0.1)
    assert scaling.value.grad.item() == 1
    assert StatsFromParameterScaling(AbsMax(), nn.Linear(1, 1), 1e-10)(torch.zeros(3)).item() == pytest.approx(1e-10)


def test_a_constant_is_no_parameter() -> None:
    scaling = ConstScaling(0.5, (1, 3, 1))
    assert scaling(torch.ones(1)).shape == (1, 3, 1)
    assert not list(scaling.parameters())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: ConstScaling(-0.5),
            "scaling_init=-0.5 is not a scale\n"
            "  a scale is positive and finite\n"
            "  Start from the largest absolute value that you expect.",
        ),
        (
            lambda: ParameterScaling(torch.ones(3), (1, 3)),
            "scaling_init of shape (3,) does not fit scaling_shape=(1, 3)\n"
            "  a tensor must have the shape of the scale\n"
            "  Reshape scaling_init, or leave scaling_shape out.",
        ),
        (
            lambda: collecting(0),
            "collect_stats_steps=0 is not a number of steps\n"
            "  what starts from statistics needs at least one step to collect them\n"
            "  Use a whole number such as 300.",
        ),
        (
            lambda: collecting(3, scaling_stats_momentum=1.5),
            "scaling_stats_momentum=1.5 is out of range\n"
            "  the weight of the current step lies above 0 and at most at 1\n"
            "  Use a number such as 0.1, or None for the mean of all steps.",
        ),
    ],
)
def test_options_out_of_range_are_refused(build: object, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        build()
    assert str(caught.value) == message


def test_layers_that_cannot_share_a_per_channel_scale_are_refused() -> None:
    from quant_core.components import PerChannel

    scaling = StatsFromParameterScaling(AbsMax(PerChannel(0)), (nn.Linear(3, 2), nn.Linear(3, 4)))
    with pytest.raises(ConfigurationError) as caught:
        scaling(torch.zeros(2, 3))
    assert str(caught.value) == (
        "layers with different numbers of channels cannot share a per-channel weight quantizer\n"
        "  their weights have the shapes [(2, 3), (4, 3)]\n"
        "  Share a per-tensor quantizer, or give each layer its own."
    )


def test_a_shared_statistic_is_one_over_all_weights() -> None:
    from quant_core.components import PerChannel

    one, other = nn.Linear(3, 2), nn.Linear(5, 2)
    joined = torch.cat([one.weight, other.weight], dim=1).abs()
    assert StatsFromParameterScaling(AbsMax(), (one, other))(one.weight) == joined.max()
    per_channel = StatsFromParameterScaling(AbsMax(PerChannel(0)), (one, other))(one.weight)
    assert torch.equal(per_channel, joined.amax(1, keepdim=True))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_batch_that_is_not_finite_is_refused_and_spoils_no_scale(bad: float, step: int) -> None:
    scaling = ParameterFromRuntimeStatsScaling(AbsMax(), 4, module=(nn.ReLU(), nn.Identity()))
    for number, batch in enumerate(BATCHES):
        if number != step:
            scaling(batch)
            continue
        before = copy.deepcopy(scaling.state_dict())
        with pytest.raises(InputError) as caught:
            scaling(torch.full((2,), bad))
        assert str(caught.value) == (
            "a tensor that holds infinities or NaN has no statistic to collect\n"
            "  at ReLU and Identity\n"
            f"  the statistic of step {step + 1} is {bad}\n"
            "  Look for infinities and NaN in what comes in, for example after a step with too large a learning rate."
        )
        assert all(torch.equal(value, before[name]) for name, value in scaling.state_dict().items())
    assert scaling.collected.count == 3


@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_compiled_step_that_is_not_finite_is_left_out(step: int) -> None:
    torch._dynamo.reset()
    scaling = collecting(3)
    compiled = torch.compile(copy.deepcopy(scaling), fullgraph=True, backend="eager")
    for number, batch in enumerate(BATCHES):
        if number == step:
            compiled(torch.full((2,), float("nan")))
        else:
            scaling(batch)
            compiled(batch)
    assert torch.equal(compiled.value, scaling.value)
    assert compiled.collected.count == scaling.collected.count == 3
