"""Scales from statistics of activations: averages, checkpoints at any step, graphs, and forwards that are computed twice."""

import copy
import io
import pickle

import pytest
import torch
import torch._dynamo.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from quant_core.components import (
    AbsMax,
    AbsMaxAve,
    ConstBitWidth,
    FloatRestriction,
    IntQuant,
    IntRestriction,
    LogFloatRestriction,
    ParameterFromRuntimeStatsScaling,
    PerChannel,
    PowerOfTwoRestriction,
    QuantDelay,
    RuntimeStatsScaling,
    Scaling,
    StepCounter,
)
from quant_core.errors import ConfigurationError, InputError, MissingDependencyError
from quant_core.proxies import ActQuantProxyFromInjector, WeightQuantProxyFromInjector
from quant_core.quant import (
    Int8ActPerTensorFixedPoint,
    Int8ActPerTensorFloat,
    Int8ActPerTensorFloatBatchQuant2d,
    Int8ActPerTensorFloatMinMaxInit,
    Int8WeightPerTensorFloat,
    Uint8ActPerTensorFloat,
)

RESTRICTIONS = [FloatRestriction, LogFloatRestriction, PowerOfTwoRestriction, IntRestriction]
MOMENTA = [0.1, 1.0, None]


def batches(count: int = 6) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(4, 3, 5, generator=generator) * (1 + step) for step in range(count)]


def scalings(**options: object) -> list[Scaling]:
    return [
        kind(AbsMax(granularity), scaling_shape=shape, restrict_scaling_impl=restriction(), **options, **more)
        for restriction in RESTRICTIONS
        for kind, more in ((ParameterFromRuntimeStatsScaling, {"collect_stats_steps": 3}), (RuntimeStatsScaling, {}))
        for granularity, shape in ((PerChannel(1), (1, 3, 1)),)
    ]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.5, 50, width=32), min_size=1, max_size=8), st.sampled_from(MOMENTA))
def test_eval_mode_uses_the_average_of_all_batches(sizes: list[float], momentum: float | None) -> None:
    wanted = sizes[0]
    for number, size in enumerate(sizes):
        weight = 1 / (number + 1) if momentum is None else momentum
        wanted = size if number == 0 else (1 - weight) * wanted + weight * size
    runtime = RuntimeStatsScaling(AbsMax(), scaling_stats_momentum=momentum)
    first = ParameterFromRuntimeStatsScaling(AbsMax(), len(sizes), scaling_stats_momentum=momentum)
    for size in sizes:
        x = torch.tensor([0.1, -size])
        assert runtime(x).item() == first(x).item() == x.abs().max().item()
    assert runtime.eval()(torch.ones(1)).item() == pytest.approx(wanted, rel=1e-5)
    assert first(torch.ones(1)).item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("momentum", MOMENTA)
@pytest.mark.parametrize("stop", range(5))
def test_training_resumes_at_any_step_as_if_it_had_not_stopped(stop: int, momentum: float | None) -> None:
    options = {"scaling_stats_momentum": momentum, "scaling_min_val": 0.5}
    for straight, resumed in zip(scalings(**options), scalings(**options), strict=True):
        for batch in batches()[:stop]:
            straight(batch)
        file = io.BytesIO()
        torch.save(straight.state_dict(), file)
        file.seek(0)
        resumed.load_state_dict(torch.load(file, weights_only=True))
        for batch in batches():
            assert torch.equal(straight(batch), resumed(batch))
        assert all(torch.equal(one, resumed.state_dict()[key]) for key, one in straight.state_dict().items())
        assert torch.equal(straight.eval()(batches()[0]), resumed.eval()(batches()[0]))


def test_eval_mode_in_between_is_restricted_and_counts_nothing() -> None:
    for scaling in scalings():
        for batch in batches(2):
            scaling(batch)
        count = scaling.collected.count.item()
        restricted = scaling.restrict_scaling_impl.of_threshold(scaling.average)
        assert torch.equal(scaling.eval()(batches()[0]), restricted)
        assert scaling.collected.count.item() == count == 2


@pytest.mark.parametrize("momentum", [0.1, None])
def test_compiled_training_goes_through_the_same_states(momentum: float | None) -> None:
    for scaling in scalings(scaling_stats_momentum=momentum)[:6]:
        torch._dynamo.reset()
        counter = torch._dynamo.testing.CompileCounter()
        compiled = torch.compile(copy.deepcopy(scaling), fullgraph=True, backend=counter)
        for batch in [*batches(), *batches()]:
            torch.testing.assert_close(compiled(batch), scaling(batch), rtol=1e-6, atol=0)
        assert counter.frame_count == 1
        for key, value in compiled._orig_mod.state_dict().items():
            torch.testing.assert_close(value, scaling.state_dict()[key], rtol=1e-6, atol=0)


def test_copies_and_pickles_go_on_alike() -> None:
    for scaling in scalings():
        scaling(batches()[0])
        for other in (copy.deepcopy(scaling), pickle.loads(pickle.dumps(scaling))):
            twin = copy.deepcopy(scaling)
            for batch in batches():
                assert torch.equal(twin(batch), other(batch))


class Net(nn.Module):
    """Two layers with quantizers that count, each of them checkpointed."""

    def __init__(self, quant: type, reentrant: bool | None, delay: int = 0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([nn.Linear(5, 5), nn.Linear(5, 5)])
        quants = [ActQuantProxyFromInjector(layer, quant.let(quant_delay_steps=delay)) for layer in self.layers]
        self.quants = nn.ModuleList(quants)
        self.reentrant = reentrant

    def block(self, index: int, x: Tensor) -> Tensor:
        return self.quants[index](torch.relu(self.layers[index](x))).value

    def forward(self, x: Tensor) -> Tensor:
        for index in range(2):
            again = self.reentrant
            x = self.block(index, x) if again is None else checkpoint(self.block, index, x, use_reentrant=again)
        return x


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("delay", [0, 2])
@pytest.mark.parametrize(
    "quant",
    [
        Uint8ActPerTensorFloat.let(collect_stats_steps=3, high_percentile_q=90.0),
        Int8ActPerTensorFixedPoint.let(collect_stats_steps=3),
        Int8ActPerTensorFloatBatchQuant2d.let(scaling_affine_rescaling_init=1.0),
    ],
    ids=["collecting", "fixed point", "batch"],
)
def test_a_forward_that_is_computed_again_for_its_gradient_is_one_step(
    quant: type, reentrant: bool, delay: int
) -> None:
    """Also at the step with which collecting, or a delay, ends."""
    plain, twice = Net(quant, None, delay), Net(quant, reentrant, delay)
    for batch in batches():
        for net in (plain, twice):
            net.zero_grad()
            net(batch.clone().requires_grad_()).square().sum().backward()
        grads = [p.grad for p in twice.parameters()]
        for one, other in zip(plain.parameters(), grads, strict=True):
            assert (one.grad is None) == (other is None)
            assert other is None or torch.equal(one.grad, other)
        assert all(torch.equal(one, twice.state_dict()[key]) for key, one in plain.state_dict().items())


def test_a_counter_without_limit_counts_forever() -> None:
    counter = StepCounter(None)
    for _ in range(5):
        counter.advance()
    assert counter.running
    assert not counter.finished()
    assert counter.count.item() == 5


def test_a_delay_in_eval_mode_is_over_when_its_steps_are() -> None:
    delay = QuantDelay(1)
    x, y = torch.tensor(0.3), torch.tensor(0.5)
    assert delay(x, y) is x
    assert delay.eval()(x, y) is y


def test_a_batch_that_is_not_finite_is_refused_with_the_name_of_the_layer() -> None:
    proxy = ActQuantProxyFromInjector(nn.ReLU(), Int8ActPerTensorFloatBatchQuant2d)
    proxy(torch.ones(1, 2, 2, 2))
    before = copy.deepcopy(proxy.state_dict())
    with pytest.raises(InputError) as caught:
        proxy(torch.full((1, 2, 2, 2), float("-inf")))
    assert str(caught.value) == (
        "a tensor that holds infinities or NaN has no statistic to collect\n"
        "  at ReLU\n"
        "  the statistic of step 2 is inf\n"
        "  Look for infinities and NaN in what comes in, for example after a step with too large a learning rate."
    )
    assert all(torch.equal(value, before[key]) for key, value in proxy.state_dict().items())


@pytest.mark.parametrize("minimum", [None, 0.0, 1e-10])
def test_activations_of_zeros_have_a_scale(minimum: float | None) -> None:
    for scaling in scalings(scaling_min_val=minimum):
        quant = IntQuant(scaling, ConstBitWidth(8), signed=True)
        x = torch.zeros(4, 3, 5, requires_grad=True)
        for _ in range(4):
            value, scale, _, _ = quant(x)
            assert bool((scale > 0).all())
            assert torch.equal(value, torch.zeros(4, 3, 5))
            value.sum().backward()
        assert torch.isfinite(x.grad).all()
        assert bool((quant.eval()(x)[1] > 0).all())


class Layer(nn.Linear):
    output_channel_dim = 0


@pytest.mark.parametrize("kind", [RuntimeStatsScaling, ParameterFromRuntimeStatsScaling])
def test_asking_a_weight_for_its_scale_is_no_step(kind: type[Scaling]) -> None:
    layer = Layer(3, 2)
    proxy = WeightQuantProxyFromInjector(layer, Int8WeightPerTensorFloat.let(scaling_impl=kind))
    proxy(layer.weight)
    before = copy.deepcopy(proxy.state_dict())
    scale, zero_point, bit_width = proxy.scale(), proxy.zero_point(), proxy.bit_width()
    assert all(torch.equal(value, before[key]) for key, value in proxy.state_dict().items())
    assert proxy.training
    assert (scale.item(), zero_point.item(), bit_width.item()) == (
        pytest.approx(layer.weight.abs().max().item() / 127),
        0,
        8,
    )


def test_a_statistic_for_the_whole_tensor_cannot_give_a_scale_per_channel() -> None:
    for kind in (RuntimeStatsScaling, ParameterFromRuntimeStatsScaling):
        with pytest.raises(ConfigurationError) as caught:
            kind(AbsMaxAve(1), scaling_shape=(1, 3, 1))(torch.ones(4, 3, 5))
        assert str(caught.value) == (
            "AbsMaxAve does not give a statistic for a scale of shape (1, 3, 1)\n"
            "  it gives 1 for a scale of 3 elements\n"
            "  Choose a scaling_stats_impl with a granularity, such as AbsMax, or a scaling_shape that fits."
        )


def test_a_tensor_that_does_not_fit_the_scale_is_refused() -> None:
    for scaling in scalings():
        with pytest.raises(InputError) as caught:
            scaling(torch.ones(4, 2, 5))
        assert str(caught.value) == (
            "a scale of shape (1, 3, 1) does not fit a tensor of shape (4, 2, 5)\n"
            "  each axis of the scale is 1 or the size of the tensor's axis, counted from the last\n"
            "  Check which axis holds the channels: (1, C, 1, 1) for images, (1, C) after a linear layer."
        )


def test_per_channel_without_a_shape_names_what_is_missing() -> None:
    with pytest.raises(MissingDependencyError) as caught:
        ActQuantProxyFromInjector(nn.ReLU(), Int8ActPerTensorFloat.let(scaling_per_output_channel=True))
    assert "'per_channel_broadcastable_shape'" in str(caught.value)
    assert "Int8ActPerTensorFloat" in str(caught.value)


def test_limits_that_are_not_given_or_contradict_each_other_are_refused() -> None:
    with pytest.raises(MissingDependencyError) as missing:
        ActQuantProxyFromInjector(nn.ReLU(), Int8ActPerTensorFloatMinMaxInit.let(max_val=1.0))
    assert "'min_val'" in str(missing.value)
    with pytest.raises(ConfigurationError, match=r"^min_val=2\.0 does not lie below max_val=1\.0\n"):
        ActQuantProxyFromInjector(nn.ReLU(), Int8ActPerTensorFloatMinMaxInit.let(min_val=2.0, max_val=1.0))


def test_a_momentum_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigurationError) as caught:
        RuntimeStatsScaling(AbsMax(), scaling_stats_momentum=0.0)
    assert str(caught.value) == (
        "scaling_stats_momentum=0.0 is out of range\n"
        "  the weight of the current step lies above 0 and at most at 1\n"
        "  Use a number such as 0.1, or None for the mean of all steps."
    )


def test_statistics_on_the_meta_device_are_filled_by_assignment() -> None:
    trained = scalings()[0]
    for batch in batches():
        trained(batch)
    with torch.device("meta"):
        empty = ParameterFromRuntimeStatsScaling(AbsMax(PerChannel(1)), 3, scaling_shape=(1, 3, 1))
    empty.load_state_dict(trained.state_dict(), assign=True)
    assert not empty.collected.running
    assert torch.equal(empty(batches()[0]), trained(batches()[0]))
