"""Weight equalization: channels get one range, and in float the model computes the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.errors import ConfigurationError, StateError, UnknownNameError
from quant_nn.calibration import passing, quantizers, run
from quant_nn.calibration.noise import output_noise
from quant_nn.correction import equalize
from quant_nn.correction.equalization import STRENGTHS


def uneven(model: nn.Module, seed: int) -> nn.Module:
    """Channels of very different ranges."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                channels = module.weight.shape[int(isinstance(module, nn.ConvTranspose2d))]
                factors = 10 ** torch.randn(channels, generator=generator).mul(0.5)
                shape = [1] * module.weight.dim()
                shape[int(isinstance(module, nn.ConvTranspose2d))] = -1
                module.weight.mul_(factors.reshape(shape))
    return model


def network(kind: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    image = torch.randn(4, 1, 8, 8)
    if kind == "linear":
        layers: list[nn.Module] = [qnn.QuantLinear(6, 8), qnn.QuantReLU(), qnn.QuantLinear(8, 7), nn.ReLU()]
        return nn.Sequential(*layers, qnn.QuantLinear(7, 3)), torch.randn(16, 6)
    if kind == "convolution":
        layers = [qnn.QuantConv2d(1, 4, 3), qnn.QuantReLU(), nn.MaxPool2d(2), qnn.QuantConv2d(4, 5, 2)]
        return nn.Sequential(*layers, nn.LeakyReLU(), nn.Flatten(), nn.Dropout(), qnn.QuantLinear(20, 3)), image
    if kind == "depthwise":
        layers = [qnn.QuantConv2d(1, 6, 1), qnn.QuantReLU(), qnn.QuantConv2d(6, 6, 3, groups=6), qnn.QuantReLU()]
        return nn.Sequential(*layers, qnn.QuantConv2d(6, 3, 1)), image
    if kind == "grouped":
        layers = [qnn.QuantConv2d(2, 6, 3, groups=2), qnn.QuantReLU(), qnn.QuantConv2d(6, 4, 3, groups=2)]
        return nn.Sequential(*layers, nn.ReLU(), qnn.QuantConv2d(4, 3, 1)), torch.randn(4, 2, 8, 8)
    if kind == "grouped, transposed":
        layers = [qnn.QuantConvTranspose2d(4, 6, 2, groups=2), nn.ReLU(), qnn.QuantConvTranspose2d(6, 9, 2, groups=3)]
        return nn.Sequential(*layers, qnn.QuantReLU(), qnn.QuantConv2d(9, 3, 2, groups=3)), torch.randn(4, 4, 5, 5)
    layers = [
        qnn.QuantConvTranspose2d(1, 4, 3),
        qnn.QuantReLU(),
        qnn.QuantConvTranspose2d(4, 2, 2),
        qnn.QuantIdentity(),
    ]
    return nn.Sequential(*layers, qnn.QuantConv2d(2, 2, 1)), image


def exact(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad(), passing(quantizers(model).values()):
        out: Tensor = model.eval()(x)
        return out


@settings(max_examples=8, deadline=None)
@given(
    st.integers(0, 1000),
    st.sampled_from(["linear", "convolution", "transposed", "depthwise", "grouped", "grouped, transposed"]),
)
def test_in_float_the_model_computes_the_same(seed: int, kind: str) -> None:
    model, x = network(kind)
    uneven(model, seed)
    before = exact(model, x)
    qnn.calibrate(model, [x], "max")
    report = equalize(model, [x], "max")
    assert len(report.factors) == 2
    after = exact(model, x)
    assert torch.allclose(after, before, rtol=1e-3, atol=1e-4 * before.abs().max().item())


def test_depthwise_convolutions_gain() -> None:
    model, x = network("depthwise")
    uneven(model, 3)
    qnn.calibrate(model, [x], "max")
    report = equalize(model, [x], "max")
    assert list(report.factors) == [("0", "2"), ("2", "4")]
    assert report.sqnr[report.strength] > report.sqnr[0.0] + 3


@pytest.mark.parametrize("seed", range(4))
def test_the_strength_says_how_near_the_ranges_of_both_layers_come(seed: int) -> None:
    model = nn.Sequential(qnn.QuantLinear(6, 8, weight_bit_width=4), nn.ReLU(), qnn.QuantLinear(8, 3))
    uneven(model, seed)

    def ratio() -> Tensor:
        return model[0].weight.detach().abs().amax(1) / model[2].weight.detach().abs().amax(0)

    before = ratio()
    report = equalize(model, [torch.randn(64, 6, generator=torch.Generator().manual_seed(seed))])
    assert report.strength > 0
    assert torch.allclose(ratio(), before ** (1 - report.strength), rtol=1e-4)


def test_the_best_of_all_strengths_is_kept() -> None:
    model, x = network("convolution")
    uneven(model, 3)
    qnn.calibrate(model, [x])
    report = equalize(model, [x])
    assert list(report.sqnr) == [0.0, *STRENGTHS]
    assert report.sqnr[report.strength] == max(report.sqnr.values())
    assert output_noise(model, [x], run).sqnr == report.sqnr[report.strength]
    assert str(report).startswith(f"equalized with strength {report.strength:g}; pairs of layers: 2; SQNR ")


def test_when_it_fails_nothing_has_changed() -> None:
    model, x = network("linear")
    qnn.calibrate(model, [x])
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(UnknownNameError):
        equalize(model, [x], "entrpy")
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_ranges_are_calibrated_again() -> None:
    model, x = network("linear")
    uneven(model, 0)
    qnn.calibrate(model, [x], "max")
    before = model[1].act_quant.scale().item()
    equalize(model, [x], "max")
    with torch.no_grad(), passing(quantizers(model).values()):
        largest = model[0](x).max()
    assert model[1].act_quant.scale().item() == pytest.approx(largest.item() / 255, rel=1e-5)
    assert model[1].act_quant.scale().item() != before


def test_learned_scales_of_weights_start_again() -> None:
    options = {"weight_scaling_impl_type": "parameter_from_stats"}
    model = nn.Sequential(qnn.QuantLinear(6, 8, **options), nn.ReLU(), qnn.QuantLinear(8, 3, **options))
    uneven(model, 2)
    equalize(model, [torch.randn(4, 6)])
    for layer in (model[0], model[2]):
        assert torch.equal(layer.weight_quant.tensor_quant.scaling_impl.value.data, layer.weight.data.abs().max())


def test_dead_channels_stay() -> None:
    model = nn.Sequential(qnn.QuantLinear(3, 4), nn.ReLU(), qnn.QuantLinear(4, 2))
    with torch.no_grad():
        model[0].weight[1] = 0
        model[2].weight[:, 2] = 0
    (factor,) = equalize(model, [torch.randn(4, 3)]).factors.values()
    assert factor[1] == factor[2] == 1
    assert torch.isfinite(factor).all()


class Residual(nn.Module):
    """The output of the first layer is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = qnn.QuantLinear(4, 4), qnn.QuantLinear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return y + self.second(y.relu())


class Twice(nn.Module):
    """One layer is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = qnn.QuantLinear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(x).relu())


class Between(nn.Module):
    """What stands between two layers keeps no factors."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.first, self.second, self.function = qnn.QuantLinear(4, 4), qnn.QuantLinear(4, 4), function

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.function(self.first(x)))


@pytest.mark.parametrize(
    "model",
    [Residual(), Twice(), Between(torch.sigmoid), Between(lambda y: y.clamp(0, 6)), Between(lambda y: y.t().relu())],
)
def test_where_factors_would_be_lost_there_is_nothing_to_equalize(model: nn.Module) -> None:
    with pytest.raises(ConfigurationError) as caught:
        equalize(model, [torch.randn(4, 4)])
    assert str(caught.value) == (
        "there is nothing to equalize\n"
        f"  at {type(model).__name__}\n"
        "  no layer of the model is read by one other layer only, with nothing but ReLU, pools and flattening between\n"
        "  Fold batch normalizations first, with fold_batch_norms(), or use weight_scaling_per_output_channel=True."
    )


def test_a_fixed_range_between_two_layers_is_an_obstacle() -> None:
    relu = qnn.QuantReLU(max_val=6.0, scaling_impl_type="const")
    model = nn.Sequential(qnn.QuantLinear(4, 4), relu, qnn.QuantLinear(4, 4))
    with pytest.raises(ConfigurationError) as caught:
        equalize(model, [torch.randn(4, 4)])
    assert str(caught.value).splitlines()[2] == (
        "  0 and 2: the range of 1.act_quant between them does not come from data"
    )


def test_it_comes_after_calibration() -> None:
    with pytest.raises(StateError) as caught:
        equalize(network("linear")[0], [torch.randn(4, 6)])
    assert str(caught.value) == (
        "weight equalization comes after calibration\n"
        "  at 1.act_quant\n"
        "  their ranges are not known yet, and so not what they will do\n"
        "  Call quant_nn.calibrate(model, data) first."
    )
