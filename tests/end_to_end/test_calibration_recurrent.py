"""Recurrent layers are calibrated by the same call, although they can compute around their quantizers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.quant import Int8ActPerTensorFloat
from quant_nn.calibration import METHODS, passing, quantizers
from quant_nn.calibration.batches import run
from quant_nn.calibration.noise import output_noise
from quant_nn.correction import correct_bias
from quant_nn.sensitivity import sensitivity
from quant_rnn import QuantGRU, QuantLSTM, QuantRNN

LAYERS: dict[str, Any] = {"rnn": QuantRNN, "lstm": QuantLSTM, "gru": QuantGRU}


class Reader(nn.Module):
    def __init__(self, layer: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = LAYERS[layer](6, 8)
        self.head = qnn.QuantLinear(8, 3, weight_bit_width=4, input_quant=Int8ActPerTensorFloat)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.layer(x)[0][-1])
        return out


def batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(7, 16, 6, generator=generator) for _ in range(3)]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("layer", LAYERS)
def test_every_quantizer_of_a_recurrent_layer_is_calibrated(layer: str, method: str) -> None:
    model = Reader(layer)
    report = qnn.calibrate(model, batches(), method)
    assert {place.partition(".")[0] for place in report.thresholds} == {"layer", "head"}
    assert all(threshold.isfinite().all() and (threshold > 0).all() for threshold in report.thresholds.values())
    assert output_noise(model, batches(), run).sqnr > 12


@pytest.mark.parametrize("layer", ["rnn", "lstm"])
def test_in_full_precision_it_is_the_layer_of_torch(layer: str) -> None:
    model = Reader(layer)
    floats = {"rnn": nn.RNN, "lstm": nn.LSTM}[layer](6, 8)
    floats.load_state_dict({key: tensor for key, tensor in model.layer.state_dict().items() if "quant" not in key})
    with torch.no_grad(), passing(quantizers(model).values()):
        x = batches()[0]
        assert torch.allclose(model.eval().layer(x)[0], floats(x)[0], atol=1e-6)


def test_biases_behind_a_recurrent_layer_are_corrected() -> None:
    model = Reader("lstm")
    qnn.calibrate(model, batches())
    before = output_noise(model, batches(), run).noise
    assert list(correct_bias(model, batches()).shifts) == ["head"]
    floats = Reader("lstm")
    with torch.no_grad(), passing(quantizers(floats).values()):
        exact = torch.cat([floats.eval()(x) for x in batches()])
    with torch.no_grad():
        found = torch.cat([model.eval()(x) for x in batches()])
    assert torch.allclose(found.mean(0), exact.mean(0), atol=1e-6)
    assert float((found - exact).square().sum()) < before


def test_the_parts_of_a_recurrent_layer_are_told_apart() -> None:
    model = Reader("lstm")
    qnn.calibrate(model, batches())
    names = [row.name for row in sensitivity(model, batches()).layers]
    assert "head" in names
    assert any(name.startswith("layer.") for name in names)
