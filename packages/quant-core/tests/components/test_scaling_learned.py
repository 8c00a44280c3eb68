"""Scales that start from statistics of the weight: at building, after loading, when shared."""

import copy
import io
import pickle

import pytest
import torch
import torch._dynamo.testing
from torch import Tensor, nn

from quant_core.components import (
    AbsMax,
    ConstBitWidth,
    ConstScaling,
    FloatRestriction,
    IntQuant,
    LogFloatRestriction,
    ParameterFromStatsFromParameterScaling,
    ParameterScaling,
    PerChannel,
    PowerOfTwoRestriction,
    StatsFromParameterScaling,
)
from quant_core.errors import ConfigurationError, InputError
from quant_core.native import kernels
from quant_core.proxies import WeightQuantProxyFromInjector
from quant_core.quant import Int8WeightPerChannelFloat, Int8WeightPerTensorFloat

RESTRICTIONS = [FloatRestriction, LogFloatRestriction, PowerOfTwoRestriction]


class Learned(Int8WeightPerTensorFloat):
    scaling_impl = ParameterFromStatsFromParameterScaling


class LearnedPerChannel(Int8WeightPerChannelFloat):
    scaling_impl = ParameterFromStatsFromParameterScaling


class Layer(nn.Linear):
    output_channel_dim = 0

    def __init__(self, quant: object = Learned, sizes: tuple[int, int] = (4, 3)) -> None:
        super().__init__(*sizes)
        if isinstance(quant, WeightQuantProxyFromInjector):
            quant.add_owner(self)
            self.weight_quant = quant
        else:
            self.weight_quant = WeightQuantProxyFromInjector(self, quant, "weight_")

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight_quant(self.weight).value, self.bias)


def threshold(layer: Layer) -> Tensor:
    return layer.weight_quant.scale().detach() * 127


@pytest.mark.parametrize("restriction", RESTRICTIONS)
def test_a_float_checkpoint_starts_the_scale_again_and_our_own_does_not(restriction: type) -> None:
    layer = Layer(Learned.let(restrict_scaling_impl=restriction))
    parameter = layer.weight_quant.tensor_quant.scaling_impl.value
    fresh = nn.Linear(4, 3)
    with torch.no_grad():
        fresh.weight.mul_(5)
    layer.load_state_dict(fresh.state_dict())
    assert layer.weight_quant.tensor_quant.scaling_impl.value is parameter
    wanted = restriction().of_threshold(fresh.weight.abs().max()) / (
        128 if restriction is PowerOfTwoRestriction else 127
    )
    torch.testing.assert_close(layer.weight_quant.scale(), wanted)
    with torch.no_grad():
        parameter.add_(0.75)
    trained, before = copy.deepcopy(layer.state_dict()), layer.weight_quant.scale().detach()
    other = Layer(Learned.let(restrict_scaling_impl=restriction))
    other.load_state_dict(trained)
    assert torch.equal(other.weight_quant.scale(), before)


def test_layers_that_share_start_from_the_largest_of_all_weights() -> None:
    first = Layer(Learned)
    second = Layer(first.weight_quant, (6, 2))
    everything = torch.cat([first.weight.flatten(), second.weight.flatten()]).abs().max()
    torch.testing.assert_close(threshold(first), everything.detach())
    both = nn.ModuleList([first, second])
    plain = nn.ModuleList([nn.Linear(4, 3), nn.Linear(6, 2)])
    with torch.no_grad():
        plain[0].weight.mul_(3)
        plain[1].weight.mul_(7)
    both.load_state_dict(plain.state_dict())
    everything = torch.cat([layer.weight.flatten() for layer in plain]).abs().max()
    torch.testing.assert_close(threshold(second), everything.detach())


def test_per_channel_starts_from_each_channel() -> None:
    layer = Layer(LearnedPerChannel)
    torch.testing.assert_close(threshold(layer), layer.weight.detach().abs().amax(1, keepdim=True))


@pytest.mark.parametrize("kind", [ConstScaling, ParameterScaling])
@pytest.mark.parametrize(
    ("options", "shape"),
    [({}, ()), ({"scaling_per_output_channel": True}, (3, 1)), ({"group_size": 2}, (3, 2))],
    ids=["tensor", "channel", "group"],
)
def test_a_given_threshold_has_as_many_numbers_as_the_weight_has_scales(
    kind: type, options: dict[str, object], shape: tuple[int, ...]
) -> None:
    layer = Layer(Int8WeightPerTensorFloat.let(scaling_impl=kind, scaling_init=0.5, **options))
    assert layer.weight_quant.tensor_quant.scaling_impl.value.shape == shape
    quantized = layer.weight_quant(layer.weight)
    assert quantized.is_valid
    torch.testing.assert_close(quantized.scale.unique(), torch.tensor([0.5 / 127]))


def test_what_is_clamped_tells_a_learned_scale_where_to_go() -> None:
    layer = Layer(Learned)
    assert layer.weight_quant.tensor_quant.clamp_gradient == "masked"
    assert Layer(Int8WeightPerTensorFloat).weight_quant.tensor_quant.clamp_gradient == "pass"
    scaling = layer.weight_quant.tensor_quant.scaling_impl
    with torch.no_grad():
        scaling.value.mul_(0.01)
    layer.weight_quant(layer.weight).value.backward(layer.weight.detach().sign())
    assert scaling.value.grad.item() > 0
    assert bool((layer.weight.grad == 0).any())


@pytest.mark.parametrize("quant", [Learned, Int8WeightPerTensorFloat])
@pytest.mark.parametrize("minimum", [None, 0.0, 1e-10])
def test_weights_of_zeros_have_a_scale(quant: type, minimum: float | None) -> None:
    layer = Layer(quant.let(scaling_min_val=minimum))
    nn.init.zeros_(layer.weight)
    layer.weight_quant.init_tensor_quant()
    quantized = layer.weight_quant(layer.weight)
    assert quantized.scale.item() > 0
    assert torch.equal(quantized.value, torch.zeros(3, 4))
    quantized.value.sum().backward()
    assert torch.isfinite(layer.weight.grad).all()


def test_weights_that_are_not_finite_give_no_start() -> None:
    layer = nn.Linear(2, 2)
    nn.init.constant_(layer.weight, float("inf"))
    with pytest.raises(InputError) as caught:
        ParameterFromStatsFromParameterScaling(AbsMax(), layer)
    assert str(caught.value) == (
        "the weight has no finite statistic\n"
        "  at Linear\n"
        "  a scale or zero-point would be computed from inf\n"
        "  Look for infinities and NaN in the weight, for example after a step with too large a learning rate."
    )


def affine(restriction: object = None, **inits: float) -> StatsFromParameterScaling:
    layer = nn.Linear(4, 3)
    return StatsFromParameterScaling(AbsMax(PerChannel(0)), layer, restrict_scaling_impl=restriction, **inits)


def test_affine_coefficients_are_learned_one_for_each_scale() -> None:
    scaling = affine(scaling_affine_rescaling_init=2.0, scaling_affine_shifting_init=0.5)
    weight = torch.tensor([[0.5, -1.0], [3.0, 0.0], [0.0, 0.25]], requires_grad=True)
    threshold = scaling(weight)
    assert threshold.flatten().tolist() == [2.5, 6.5, 1.0]
    threshold.sum().backward()
    coefficients = dict(scaling.affine_rescaling.named_parameters())
    assert coefficients["affine_weight"].grad.flatten().tolist() == [1.0, 3.0, 0.25]
    assert coefficients["affine_bias"].grad.flatten().tolist() == [1.0, 1.0, 1.0]
    assert weight.grad.tolist() == [[0, -2], [2, 0], [0, 2]]
    assert scaling.learns


def test_what_affine_coefficients_leave_out_of_range_gets_no_gradient() -> None:
    """As with every other threshold that learns; a statistic alone lets the gradient pass."""
    layer = nn.Linear(4, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0.9, -0.2, 0.1]]))
    for options, wanted in (
        ({}, [1, 1, 1, 1]),
        ({"scaling_affine_rescaling_init": 0.5, "scaling_affine_shifting_init": None}, [None, 0, 1, 1]),
    ):
        quantizer = Int8WeightPerTensorFloat.let(
            **({"scaling_impl_type": "affine_stats", **options} if options else {})
        )
        layer.weight.grad = None
        WeightQuantProxyFromInjector(layer, quantizer)(layer.weight).value.sum().backward()
        for found, expected in zip(layer.weight.grad.flatten().tolist(), wanted, strict=True):
            assert expected is None or found == pytest.approx(expected, abs=0.02)


def test_affine_coefficients_of_logarithms_are_powers_and_factors() -> None:
    scaling = affine(LogFloatRestriction(), scaling_affine_rescaling_init=2.0, scaling_affine_shifting_init=1.0)
    threshold = scaling(torch.tensor([[3.0], [0.5], [1.0]]))
    torch.testing.assert_close(threshold.flatten(), torch.tensor([18.0, 0.5, 2.0]))


def test_affine_coefficients_that_are_off_leave_nothing_behind() -> None:
    scaling = affine()
    assert not list(scaling.parameters())
    assert not scaling.learns
    assert not scaling.state_dict()


def test_an_affine_start_that_is_no_number_is_refused() -> None:
    with pytest.raises(ConfigurationError) as caught:
        affine(scaling_affine_shifting_init=True)
    assert str(caught.value) == (
        "scaling_affine_shifting_init=True is not a number to start from\n"
        "  it is where a learned coefficient of the scale starts\n"
        "  Use 0.0, or None for no such coefficient."
    )


@pytest.mark.parametrize("quant", [Learned, LearnedPerChannel], ids=lambda quant: quant.__name__)
def test_copies_pickles_and_graphs_compute_the_same(quant: type) -> None:
    torch._dynamo.reset()
    layer, x = Layer(quant.let(restrict_scaling_impl=PowerOfTwoRestriction)), torch.randn(5, 4)
    wanted = layer(x)
    buffer = io.BytesIO(pickle.dumps(layer.weight_quant))
    assert torch.equal(copy.deepcopy(layer)(x), wanted)
    assert torch.equal(pickle.load(buffer)(layer.weight).value, layer.weight_quant(layer.weight).value)
    torch.testing.assert_close(torch.compile(layer, fullgraph=True, backend="aot_eager")(x), wanted)
    captured = torch.export.export(layer.eval(), (x,)).module()
    torch.testing.assert_close(captured(x), wanted)


def test_a_layer_on_the_meta_device_is_filled_by_assignment() -> None:
    trained = Layer(Learned)
    with torch.no_grad():
        trained.weight_quant.tensor_quant.scaling_impl.value.mul_(3)
    with torch.device("meta"):
        layer = Layer(Learned)
    layer.load_state_dict(trained.state_dict(), assign=True)
    x = torch.randn(2, 4)
    assert torch.equal(layer(x), trained(x))


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
@pytest.mark.parametrize("native", ["0", "auto"])
def test_a_weight_that_is_not_finite_is_refused_at_each_step(
    bad: float, native: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANT_NATIVE", native)
    kernels.cache_clear()
    layer = nn.Linear(2, 1)
    quant = IntQuant(StatsFromParameterScaling(AbsMax(), layer), ConstBitWidth(4), signed=True, clamp_gradient="pass")
    quant(layer.weight)
    with torch.no_grad():
        layer.weight[0, 0] = bad
    with pytest.raises(InputError) as caught:
        quant(layer.weight)
    kernels.cache_clear()
    assert str(caught.value) == (
        "the weight has no finite statistic\n"
        "  at Linear\n"
        f"  a scale or zero-point would be computed from {bad}\n"
        "  Look for infinities and NaN in the weight, for example after a step with too large a learning rate."
    )
