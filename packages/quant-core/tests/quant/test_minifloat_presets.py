"""Quantizers to minifloats: the scales of the named ones, what becomes of their tensors, and what there is not."""

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import quant_core.quant as q
from quant_core.components import ConstScaling, FloatQuant, PerGroup, PowerOfTwoRestriction
from quant_core.errors import ConfigurationError, InputError, UnusedAttributeError
from quant_core.export import capture, check
from quant_core.ops.minifloat import fake_float
from quant_core.proxies import ActQuantProxyFromInjector, WeightQuantProxyFromInjector
from quant_core.tensor import QuantTensor

LARGEST = {
    "Fp8e4m3": 480.0,
    "Fp8e5m2": 114688.0,
    "Fp8e4m3OCP": 448.0,
    "Fp8e5m2OCP": 57344.0,
    "Fp8e4m3FNUZ": 240.0,
    "Fp8e5m2FNUZ": 57344.0,
}


class Layer(nn.Module):
    """A linear layer whose weight and input are quantized."""

    output_channel_dim = 0

    def __init__(self, weight: Any, act: Any, **options: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 5, generator=torch.Generator().manual_seed(0)))
        self.weight_quant = WeightQuantProxyFromInjector(self, weight.let(**options))
        self.act_quant = ActQuantProxyFromInjector(self, act)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(self.act_quant(x).value, self.weight_quant(self.weight).value)


def calibrated(**options: Any) -> Layer:
    layer = Layer(
        q.Fp8e4m3OCPWeightPerChannelFloat, q.Fp8e4m3OCPActPerTensorFloat.let(collect_stats_steps=1), **options
    )
    layer(torch.randn(8, 5, generator=torch.Generator().manual_seed(1)))
    return layer.eval()


def quantized(*shape: int, act: Any = q.Fp8e4m3Act) -> QuantTensor:
    found: QuantTensor = ActQuantProxyFromInjector(nn.Identity(), act)(torch.randn(shape) * 3)
    return found


@pytest.mark.parametrize("family", LARGEST)
def test_scales_are_thresholds_by_the_largest_number(family: str) -> None:
    largest = LARGEST[family]
    for granularity in ("PerTensorFloat", "PerChannelFloat", ""):
        layer = Layer(getattr(q, f"{family}Weight{granularity}"), getattr(q, f"{family}Act"))
        rows = layer.weight.abs().amax(1, keepdim=True)
        wanted = {"PerTensorFloat": rows.amax() / largest, "PerChannelFloat": rows / largest, "": torch.tensor(1.0)}
        assert torch.equal(layer.weight_quant.scale(), wanted[granularity])
        weight = layer.weight_quant(layer.weight)
        assert isinstance(weight, QuantTensor)
        assert weight.is_valid
        assert weight.float_format is not None
        assert weight.float_format.max_value == largest
        assert weight.bit_width.item() == 8


@pytest.mark.parametrize("family", LARGEST)
@pytest.mark.parametrize("mode", ["CEIL", "FLOOR", "ROUND"])
def test_scales_that_are_powers_of_two(family: str, mode: str) -> None:
    powers = {"restrict_scaling_impl": PowerOfTwoRestriction, "restrict_rounding_mode": mode}
    layer = Layer(getattr(q, f"{family}WeightPerChannelFloat"), getattr(q, f"{family}Act"), **powers)
    scale = layer.weight_quant.scale().detach()
    assert (torch.frexp(scale).mantissa == 0.5).all()
    exact = layer.weight.detach().abs().amax(1, keepdim=True) / LARGEST[family]
    assert ((exact / 2 < scale) & (scale < exact * 4 if mode == "FLOOR" else scale < exact * 2)).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(["masked", "pass"]))
def test_weights_and_their_scale_train(seed: int, clamp_gradient: str) -> None:
    torch.manual_seed(seed)
    weight = torch.randn(4, 6, requires_grad=True)
    threshold = torch.tensor(1.0, requires_grad=True)

    class Threshold(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return threshold

    quant = FloatQuant(Threshold(), 4, 3, clamp_gradient=clamp_gradient)
    value, scale, *_ = quant(weight)
    assert torch.equal(value, fake_float(weight, scale, quant.float_format))
    value.sum().backward()
    inside = (weight.abs() < 496 / 480) | (clamp_gradient == "pass")
    assert weight.grad is not None
    assert torch.equal(weight.grad, inside.float())
    assert threshold.grad is not None


def test_there_is_no_integer_view() -> None:
    x = quantized(4)
    for ask in (x.int, x.range):
        with pytest.raises(InputError) as caught:
            ask()
        assert str(caught.value) == (
            "minifloats have no integers\n"
            "  they are numbers of e4m3 up to 480 times the scale, which are not equally far apart\n"
            "  Read .value and .scale, or use an integer quantizer here."
        )


def test_what_moves_values_keeps_them_minifloats_and_what_computes_gives_plain_tensors() -> None:
    x = quantized(2, 3, 4, 4)
    kept = [
        x.reshape(2, -1),
        x[0],
        torch.cat([x, x]),
        nn.functional.relu(x),
        nn.functional.max_pool2d(x, 2),
        nn.functional.pad(x, (1, 1)),
        x.half().float(),
        nn.functional.interpolate(x, scale_factor=2),
    ]
    for y in kept:
        assert isinstance(y, QuantTensor)
        assert y.float_format == x.float_format
        assert y.is_valid
    for y in (x + x, -x, x * 2.0, x.abs(), x.mean(), nn.functional.avg_pool2d(x, 2), x.flatten(1) @ x.flatten(1).T):
        assert type(y) is Tensor


def test_minifloats_of_other_formats_are_not_joined() -> None:
    x = quantized(4)
    scale, zero_point = x.scale, x.zero_point
    other = quantized(4, act=q.Fp8e5m2Act).replace(scale=scale, zero_point=zero_point)
    assert isinstance(torch.cat([x, x]), QuantTensor)
    assert type(torch.cat([x, other])) is Tensor


def test_what_is_off_the_grid_is_not_valid() -> None:
    x = quantized(4)
    assert x.is_valid
    assert not x.replace(value=x.value * 1.03).is_valid
    assert not x.replace(value=x.value.clamp(min=481.0)).is_valid


def test_copies_files_and_graphs_keep_the_format() -> None:
    x, buffer = quantized(4), io.BytesIO()
    torch.save(x, buffer)
    buffer.seek(0)
    for y in (copy.deepcopy(x), pickle.loads(pickle.dumps(x)), torch.load(buffer)):
        assert y.float_format == x.float_format
        assert "float_format=e4m3 up to 480" in repr(y)
    proxy = ActQuantProxyFromInjector(nn.Identity(), q.Fp8e4m3Act).eval()
    compiled = torch.compile(proxy, fullgraph=True, backend="aot_eager")
    assert compiled(x.value).float_format == x.float_format


def test_a_state_dict_resumes_to_the_bit() -> None:
    layer, x = calibrated(), torch.randn(4, 5)
    other = Layer(q.Fp8e4m3OCPWeightPerChannelFloat, q.Fp8e4m3OCPActPerTensorFloat.let(collect_stats_steps=1)).eval()
    other.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x), other(x))


def test_capture_folds_weights_to_their_numbers() -> None:
    layer, x = calibrated(), torch.randn(4, 5)
    program = capture(layer, (x,))
    weight, act = sorted(program.quantizers, key=lambda quantizer: quantizer.role, reverse=True)
    assert (weight.op, weight.role, weight.granularity, weight.bit_width) == (
        "quant::float",
        "weight",
        "per_channel",
        8,
    )
    assert (act.op, act.role, act.granularity, act.bit_width) == ("quant::float", "activation", "per_tensor", 8)
    assert weight.values is not None
    assert torch.equal(weight.values, layer.weight_quant(layer.weight).value)
    assert torch.equal(program.run(x), layer(x))


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(["ROUND", "FLOOR", "CEIL", "TO_ZERO", "HALF_UP"]), st.integers(0, 100))
def test_folding_rounds_once(mode: str, seed: int) -> None:
    layer, x = calibrated(rounding_mode=mode), torch.randn(4, 5, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(capture(layer, (x,)).run(x), layer(x))


def test_targets_of_integers_refuse_them() -> None:
    report = check(capture(calibrated(), (torch.randn(4, 5),)), "integers")
    assert [refusal.op for refusal in report.refusals][:2] == ["quant::float", "quant::float"]
    assert "Use another quantizer here" in report.refusals[0].fix


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"signed": False}, "a minifloat cannot be unsigned"),
        ({"nan_values": ("1",)}, "nan_values holds '1'"),
        ({"rounding_mode": "NEAREST"}, "unknown rounding_mode 'NEAREST'"),
    ],
)
def test_options_that_contradict_each_other(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        FloatQuant(ConstScaling(1.0), 4, 3, **options)
    assert message in str(caught.value)


def test_groups_are_refused() -> None:
    scaling = ConstScaling(1.0)
    scaling.granularity = PerGroup(4, 1)
    with pytest.raises(ConfigurationError) as caught:
        FloatQuant(scaling, 4, 3)
    assert str(caught.value) == (
        "a minifloat quantizer takes no group_size\n"
        "  its scale is one for the tensor or one for each channel\n"
        "  Leave group_size out, or set scaling_per_output_channel=True."
    )


def test_a_bit_width_is_no_option_of_a_minifloat() -> None:
    with pytest.raises(UnusedAttributeError):
        Layer(q.Fp8e4m3WeightPerTensorFloat, q.Fp8e4m3Act, bit_width=8)
