"""Sensitivity: one layer quantized at a time."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.errors import ConfigurationError, InputError, StateError
from quant_nn.calibration import passing, quantizers
from quant_nn.sensitivity import LayerSensitivity, SensitivityReport, sensitivity


def net() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        qnn.QuantLinear(6, 16, weight_bit_width=8),
        qnn.QuantReLU(bit_width=8),
        qnn.QuantLinear(16, 16, weight_bit_width=2),
        nn.ReLU(),
        qnn.QuantLinear(16, 3, weight_bit_width=4),
    ).eval()
    qnn.calibrate(model, batches(), "max")
    return model


def batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(32, 6, generator=generator) for _ in range(2)]


def test_it_is_the_model_with_one_layer_quantized() -> None:
    model = net()
    report = sensitivity(model, iter(batches()))
    assert [row.name for row in report.layers][:2] == ["2", "4"]
    assert [row.sqnr for row in report.layers] == sorted(row.sqnr for row in report.layers)
    found = quantizers(model)
    with torch.no_grad():
        with passing(found.values()):
            exact = torch.cat([model(x) for x in batches()]).double()
        with passing([proxy for path, proxy in found.items() if not path.startswith("2.")]):
            only = torch.cat([model(x) for x in batches()]).double()
    expected = 10 * math.log10(float(exact.square().sum() / (exact - only).square().sum()))
    assert report.layers[0].sqnr == pytest.approx(expected, rel=1e-9)


def test_the_change_of_a_loss() -> None:
    model = net()
    target = torch.randn(32, 3)
    data = [(x, target) for x in batches()]

    def loss(out: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        return (out - batch[1]).square().mean()

    report = sensitivity(model, data, loss)
    with torch.no_grad(), passing(quantizers(model).values()):
        exact = sum(loss(model(x), (x, y)).item() for x, y in data) / 2
    assert report.loss == pytest.approx(exact, rel=1e-6)
    changes = [row.loss_change for row in report.layers]
    assert changes == sorted(changes, reverse=True)


def test_nothing_changes() -> None:
    model = net().train()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    sensitivity(model, batches())
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())


def test_models_return_anything() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = qnn.QuantLinear(6, 3, weight_bit_width=2)
            self.act = qnn.QuantIdentity(return_quant_tensor=True)

        def forward(self, x: Tensor) -> dict[str, object]:
            return {"out": self.act(self.layer(x)), "index": torch.arange(3)}

    model = Two()
    qnn.calibrate(model, batches())
    assert {row.name for row in sensitivity(model, batches()).layers} == {"layer", "act"}


REPORT = SensitivityReport(
    layers=(
        LayerSensitivity(name="a", sqnr=12.34, loss_change=0.5),
        LayerSensitivity(name="b", sqnr=math.inf, loss_change=0.0),
    ),
    loss=1.25,
)


def test_table_and_json() -> None:
    assert str(REPORT) == (
        "loss in full precision: 1.25\n"
        "layer   SQNR in dB   change of loss\n"
        "───────────────────────────────────\n"
        "a       12.3         +0.5\n"
        "b       inf          +0"
    )
    assert json.loads(REPORT.to_json()) == {
        "loss": 1.25,
        "layers": [
            {"name": "a", "sqnr": 12.34, "loss_change": 0.5},
            {"name": "b", "sqnr": None, "loss_change": 0.0},
        ],
    }


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigurationError) as caught:
        REPORT.plot()
    assert str(caught.value) == (
        "the report cannot be plotted\n  matplotlib is not installed\n  Install it: pip install 'quant-nn[plot]'."
    )


def test_bad_input_is_refused() -> None:
    with pytest.raises(ConfigurationError) as caught:
        sensitivity(nn.Linear(2, 2), batches())
    assert str(caught.value) == (
        "there is no layer to analyse\n"
        "  at Linear\n"
        "  no quantizer of the model is on\n"
        "  Give the model quantized layers, with quant_nn.quantize(model, rules) for example."
    )
    with pytest.raises(InputError, match="there is no data"):
        sensitivity(net(), [])
    with pytest.raises(StateError, match="the analysis of sensitivity comes after calibration"):
        sensitivity(qnn.QuantReLU(), batches())


@pytest.mark.parametrize(
    ("loss", "found"),
    [
        (lambda out, batch: out.sum() * float("nan"), "nan"),
        (lambda out, batch: out.sum(1), "a tensor of shape (32,)"),
    ],
)
def test_a_loss_is_a_finite_number(loss: Any, found: str) -> None:
    with pytest.raises(InputError) as caught:
        sensitivity(net(), batches(), loss)
    assert str(caught.value) == (
        f"the loss is {found}\n"
        "  at in full precision\n"
        "  losses are compared, so that it is one finite number for each batch\n"
        "  Take the mean of the losses of a batch, and look for infinities and NaN in the data."
    )
    assert sensitivity(net(), batches(), lambda out, batch: 2.0).loss == 2.0
