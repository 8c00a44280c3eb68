"""Zero-points: the laws of the grid that they give, and the state machine of the one that collects first and learns later."""

import copy
import io
import pickle
from collections.abc import Callable

import pytest
import torch
import torch._dynamo.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from quant_core.components import (
    AbsMinMax,
    BitWidth,
    ConstBitWidth,
    ConstScaling,
    ConstZeroPoint,
    HalfQuadraticOptimizerZeroPoint,
    IntQuant,
    MSEZeroPoint,
    NegativeMinOrZero,
    NegativePercentileOrZero,
    ParameterFromRuntimeZeroPoint,
    ParameterFromStatsFromParameterZeroPoint,
    ParameterZeroPoint,
    PerChannel,
    PerTensor,
    StatsFromParameterScaling,
    StatsFromParameterZeroPoint,
    ZeroPoint,
    ZeroZeroPoint,
)
from quant_core.errors import ConfigurationError, InputError
from quant_core.ops import integer_range

BATCHES = [torch.tensor([1.0, -2.0]), torch.tensor([4.0, -0.5]), torch.tensor([-3.0, 1.0]), torch.tensor([9.0, 1.0])]
STEP = torch.tensor(0.1)
EIGHT = torch.tensor(8.0)


def normal(seed: int, *shape: int, shift: float = 0.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + shift


def weight_layer(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer


def quantizer_of(weight: Tensor, bits: int, *, signed: bool = False, quantized: bool = True, channels: bool = False):
    """Uniform quantization of a weight between its ends, and the layer that it was built for."""
    layer = weight_layer(weight)
    grain = PerChannel(0) if channels else PerTensor()
    zero_point = StatsFromParameterZeroPoint(
        NegativeMinOrZero(grain), layer, signed=signed, quantize_zero_point=quantized
    )
    return IntQuant(
        StatsFromParameterScaling(AbsMinMax(grain), layer, scaling_min_val=1e-10),
        ConstBitWidth(bits),
        signed,
        zero_point,
    )


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(2, 8), st.sampled_from([-9.0, -0.5, 0.0, 0.5, 9.0]), st.booleans())
def test_zero_is_a_level_and_both_ends_are_within_a_step(seed: int, bits: int, shift: float, channels: bool) -> None:
    weight = normal(seed, 3, 17, shift=shift)
    quant = quantizer_of(weight, bits, channels=channels)
    value, scale, zero_point, _ = quant(weight)
    low, high = integer_range(bits, signed=False, narrow_range=False)
    assert torch.equal(zero_point, zero_point.round())
    assert bool(((zero_point >= low) & (zero_point <= high)).all())
    zero, *_ = IntQuant(ConstScaling(scale.detach() * high), ConstBitWidth(bits), False, ConstZeroPoint(zero_point))(
        torch.zeros_like(weight)
    )
    assert torch.equal(zero, torch.zeros_like(weight))
    assert bool(((value - weight).abs() <= scale * 1.001).all())
    assert quant.zero_on_grid


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.integers(2, 8))
def test_a_zero_point_that_is_not_quantized_puts_the_lowest_level_on_the_smallest_element(seed: int, bits: int) -> None:
    weight = normal(seed, 3, 17)
    quant = quantizer_of(weight, bits, quantized=False)
    value, _, zero_point, _ = quant(weight)
    assert not quant.zero_on_grid
    assert zero_point != zero_point.round()
    torch.testing.assert_close(value.min(), weight.min(), rtol=1e-5, atol=1e-6)


def test_per_channel_is_per_tensor_on_each_channel() -> None:
    weight = normal(0, 3, 17)
    _, scale, zero_point, _ = quantizer_of(weight, 4, channels=True)(weight)
    for channel, row in enumerate(weight):
        _, one, point, _ = quantizer_of(row.unsqueeze(0), 4)(row.unsqueeze(0))
        assert scale[channel, 0] == one
        assert zero_point[channel, 0] == point


def test_a_signed_range_starts_at_its_lowest_integer() -> None:
    zero_point = ParameterZeroPoint(1.0, signed=True)
    assert zero_point(torch.ones(1), STEP, EIGHT).item() == -118


@pytest.mark.parametrize("value", [torch.zeros(3, 5), torch.full((3, 5), -2.0), torch.full((3, 5), 2.0)], ids=str)
@pytest.mark.parametrize("channels", [False, True])
def test_constant_weights_have_a_grid_that_holds_them(value: Tensor, channels: bool) -> None:
    out, scale, zero_point, _ = quantizer_of(value, 8, channels=channels)(value)
    assert bool(torch.isfinite(scale).all())
    assert bool(torch.isfinite(zero_point).all())
    torch.testing.assert_close(out, value, rtol=1e-5, atol=1e-6)


def test_the_gradient_of_a_learned_zero_point() -> None:
    """``|v|/s``: what is clamped moves with it by one step, and nothing else."""
    zero_point = ParameterZeroPoint(1.0, signed=False)
    quant = IntQuant(ConstScaling(2.0), ConstBitWidth(8), False, zero_point)
    value, scale, *_ = quant(torch.tensor([-5.0, 0.3, 9.0, 9.0]))
    value.sum().backward()
    assert zero_point.value.grad.item() == pytest.approx(-3 * scale.item() / scale.item())


@pytest.mark.parametrize("start", [1e-20, 0.0, -1e-20])
def test_a_zero_point_at_zero_can_leave_it(start: float) -> None:
    zero_point = ParameterZeroPoint(start, signed=False)
    zero_point(torch.ones(1), STEP, EIGHT).backward()
    assert zero_point.value.grad.abs().item() == pytest.approx(10)


def collecting(steps: int = 3, **options: object) -> ParameterFromRuntimeZeroPoint:
    return ParameterFromRuntimeZeroPoint(NegativeMinOrZero(), signed=False, collect_stats_steps=steps, **options)


def test_while_collecting_it_follows_the_statistic_and_then_stays() -> None:
    zero_point = collecting(3, zero_point_stats_momentum=0.1)
    found = [zero_point(batch, STEP, EIGHT).item() for batch in BATCHES]
    followed = [-2.0, 0.9 * -2 + 0.1 * -0.5]
    followed.append(0.9 * followed[1] + 0.1 * -3)
    assert found[:3] == [20, 5, 30]
    assert zero_point.value.item() == pytest.approx(followed[2])
    assert found[3] == round(-followed[2] / 0.1)
    assert not zero_point.reads_input


def test_eval_mode_uses_the_value_as_it_stands_and_counts_nothing() -> None:
    zero_point = collecting(3)
    assert zero_point.eval()(BATCHES[0], STEP, EIGHT).item() == 0
    zero_point.train()(BATCHES[0], STEP, EIGHT)
    assert zero_point.eval()(BATCHES[1], STEP, EIGHT).item() == 20
    assert zero_point.collected.count.item() == 1


@pytest.mark.parametrize("stop", range(5))
def test_training_resumes_at_any_step_as_if_it_had_not_stopped(stop: int) -> None:
    straight = collecting(3)
    for batch in BATCHES[:stop]:
        straight(batch, STEP, EIGHT)
    file = io.BytesIO()
    torch.save(straight.state_dict(), file)
    file.seek(0)
    resumed = collecting(3)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for batch in BATCHES:
        assert torch.equal(straight(batch, STEP, EIGHT), resumed(batch, STEP, EIGHT))
    assert torch.equal(straight.value, resumed.value)


def test_compiled_training_goes_through_the_same_states_without_a_recompile_at_each_step() -> None:
    torch._dynamo.reset()
    eager = collecting(3)
    module = copy.deepcopy(eager)
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(module, fullgraph=True, backend=counter)
    for batch in [*BATCHES, *BATCHES]:
        assert torch.equal(compiled(batch, STEP, EIGHT), eager(batch, STEP, EIGHT))
    assert counter.frame_count == 1
    assert torch.equal(module.value, eager.value)


@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_batch_that_is_not_finite_is_refused_and_spoils_no_zero_point(bad: float, step: int) -> None:
    zero_point = collecting(4, module=nn.ReLU())
    for number, batch in enumerate(BATCHES):
        if number != step:
            zero_point(batch, STEP, EIGHT)
            continue
        before = copy.deepcopy(zero_point.state_dict())
        with pytest.raises(InputError) as caught:
            zero_point(torch.full((2,), bad), STEP, EIGHT)
        assert str(caught.value) == (
            "a tensor that holds infinities or NaN has no statistic to collect\n"
            "  at ReLU\n"
            f"  the statistic of step {step + 1} is {bad}\n"
            "  Look for infinities and NaN in what comes in, for example after a step with too large a learning rate."
        )
        assert all(torch.equal(before[key], now) for key, now in zero_point.state_dict().items())


def test_the_mean_of_all_steps() -> None:
    zero_point = collecting(3, zero_point_stats_momentum=None)
    for batch in BATCHES[:3]:
        zero_point(batch, STEP, EIGHT)
    assert zero_point.value.item() == pytest.approx((-2 - 0.5 - 3) / 3)


STATISTICS = {
    "smallest": lambda bits: NegativeMinOrZero(),
    "percentile": lambda bits: NegativePercentileOrZero(5.0),
    "squared error": lambda bits: MSEZeroPoint(bits, signed=False),
    "half-quadratic": lambda bits: HalfQuadraticOptimizerZeroPoint(bits, signed=False),
}


def from_weight(layer: nn.Linear, statistic: str, bits: BitWidth) -> ParameterFromStatsFromParameterZeroPoint:
    scaling = StatsFromParameterScaling(AbsMinMax(), layer)
    return ParameterFromStatsFromParameterZeroPoint(STATISTICS[statistic](bits), layer, scaling, bits, signed=False)


@pytest.mark.parametrize("statistic", list(STATISTICS))
def test_one_that_starts_from_the_weight_is_a_parameter_that_survives_copies(statistic: str) -> None:
    layer = weight_layer(normal(0, 4, 30))
    zero_point = from_weight(layer, statistic, ConstBitWidth(4))
    assert list(zero_point.state_dict()) == ["value"]
    assert layer.weight.min() <= zero_point.value <= 0
    wanted = zero_point(layer.weight, STEP, EIGHT)
    for twin in (copy.deepcopy(zero_point), pickle.loads(pickle.dumps(zero_point))):
        assert torch.equal(twin(layer.weight, STEP, EIGHT), wanted)


@pytest.mark.parametrize("statistic", list(STATISTICS))
def test_collecting_compiles_with_every_statistic(statistic: str) -> None:
    torch._dynamo.reset()
    eager = ParameterFromRuntimeZeroPoint(STATISTICS[statistic](ConstBitWidth(4)), signed=False, collect_stats_steps=2)
    module = copy.deepcopy(eager)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for seed in range(3):
        x = normal(seed, 50)
        assert torch.equal(compiled(x, STEP, torch.tensor(4.0)), eager(x, STEP, torch.tensor(4.0)))
    assert torch.equal(module.value, eager.value)


def test_one_over_the_weights_of_several_layers() -> None:
    one, other = weight_layer(normal(0, 2, 3)), weight_layer(normal(1, 2, 5, shift=-2.0))
    zero_point = StatsFromParameterZeroPoint(NegativeMinOrZero(), (one, other), signed=False)
    lowest = min(one.weight.min(), other.weight.min())
    for layer in (one, other):
        assert zero_point(layer.weight, STEP, EIGHT) == torch.round(-lowest / STEP)


def test_what_reads_the_tensor_says_so() -> None:
    layer = weight_layer(normal(0, 2, 3))
    assert not ZeroZeroPoint().reads_input
    assert not ConstZeroPoint(1).reads_input
    assert not ParameterZeroPoint(1.0, signed=False).reads_input
    assert StatsFromParameterZeroPoint(NegativeMinOrZero(), layer, signed=False).reads_input
    assert collecting().reads_input
    assert not collecting().eval().reads_input
    with pytest.raises(NotImplementedError, match=r"ZeroPoint must define forward\(x, scale, bit_width\)"):
        ZeroPoint()(torch.ones(1), STEP, EIGHT)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: ParameterZeroPoint(float("inf"), signed=False),
            "zero_point_init=inf is not finite\n"
            "  it is the magnitude of the real number that the lowest integer stands for\n"
            "  Start from the magnitude of the lowest value that you expect.",
        ),
        (
            lambda: ParameterZeroPoint("a", signed=False),  # type: ignore[arg-type]
            "zero_point_init='a' is no number\n"
            "  it is the magnitude of the real number that the lowest integer stands for\n"
            "  Start from the magnitude of the lowest value that you expect.",
        ),
        (
            lambda: ParameterZeroPoint(torch.tensor(1j), signed=False),
            "zero_point_init=tensor(0.+1.j) is no number\n"
            "  it is the magnitude of the real number that the lowest integer stands for\n"
            "  Start from the magnitude of the lowest value that you expect.",
        ),
        (
            lambda: ConstZeroPoint(None),  # type: ignore[arg-type]
            "zero_point_init=None is no number\n"
            "  a zero-point is the integer that stands for 0, so that 0 is represented exactly\n"
            "  Use the number of steps from the lowest level to 0.",
        ),
        (
            lambda: ParameterZeroPoint(torch.ones(3), False, zero_point_shape=(1, 3)),
            "zero_point_init of shape (3,) does not fit zero_point_shape=(1, 3)\n"
            "  a tensor must have the shape of the zero-point\n"
            "  Reshape zero_point_init, or leave zero_point_shape out.",
        ),
        (
            lambda: ParameterZeroPoint(1.0, signed=False, quantize_zero_point=1),
            "quantize_zero_point=1 is neither True nor False\n"
            "  a quantized zero-point is an integer, so that the number 0 is a level\n"
            "  Set quantize_zero_point to True or False.",
        ),
        (
            lambda: collecting(0),
            "collect_stats_steps=0 is not a number of steps\n"
            "  what starts from statistics needs at least one step to collect them\n"
            "  Use a whole number such as 300.",
        ),
        (
            lambda: collecting(3, zero_point_stats_momentum=1.5),
            "zero_point_stats_momentum=1.5 is out of range\n"
            "  the weight of the current step lies above 0 and at most at 1\n"
            "  Use a number such as 0.1, or None for the mean of all steps.",
        ),
        (
            lambda: HalfQuadraticOptimizerZeroPoint(ConstBitWidth(4), signed=False, hqo_lp_norm_zp=1.5),
            "hqo_lp_norm_zp=1.5 is out of range\n"
            "  it is above 0 and at most 1, and finite\n"
            "  Leave it out for the default.",
        ),
    ],
)
def test_options_out_of_range_are_refused(build: object, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        build()
    assert str(caught.value) == message


@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_a_weight_that_is_not_finite_names_its_layer(bad: float) -> None:
    with pytest.raises(InputError) as caught:
        from_weight(weight_layer(torch.tensor([[bad, 1.0]])), "smallest", ConstBitWidth(4))
    assert str(caught.value) == (
        "the weight has no finite statistic\n"
        "  at Linear\n"
        f"  a scale or zero-point would be computed from {abs(bad)}\n"
        "  Look for infinities and NaN in the weight, for example after a step with too large a learning rate."
    )


@pytest.mark.parametrize("build", [lambda: ConstZeroPoint(3), lambda: ParameterZeroPoint(1.0, signed=False)])
def test_a_start_on_the_meta_device_has_no_numbers_to_check(build: Callable[[], ZeroPoint]) -> None:
    with torch.device("meta"):
        built = build()
    assert all(tensor.is_meta for tensor in (*built.parameters(), *built.buffers()))
