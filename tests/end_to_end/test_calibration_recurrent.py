"""Recurrent layers are calibrated by the same call, although they can compute around their quantizers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

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


class Last(nn.Module):
    """The last step of a sequence."""

    def forward(self, result: tuple[Tensor, Tensor]) -> Tensor:
        return result[0][-1]


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


def test_biases_of_a_recurrent_layer_and_behind_it_are_corrected() -> None:
    model = Reader("lstm")
    qnn.calibrate(model, batches())
    before = output_noise(model, batches(), run).noise
    floats = Reader("lstm")
    with torch.no_grad(), passing(quantizers(floats).values()):
        exact = torch.cat([floats.eval()(x) for x in batches()])
    report = correct_bias(model, batches())
    assert list(report.shifts) == ["layer.bias_ih_l0", "head"]
    assert report.left == ()
    with torch.no_grad():
        found = torch.cat([model.eval()(x) for x in batches()])
    assert torch.allclose(found.mean(0), exact.mean(0), atol=1e-6)
    assert float((found - exact).square().sum()) < before


def rounding(layer: nn.Module, end: str) -> tuple[Tensor, Tensor]:
    """What the quantizers of 3 bits add to the two matrices of a direction, gate by gate."""
    found = []
    for name in (f"weight_ih{end}", f"weight_hh{end}"):
        gates = []
        for start in range(0, len(getattr(layer, name)), layer.hidden_size):
            both = [
                getattr(layer, each)[start : start + layer.hidden_size]
                for each in (f"weight_ih{end}", f"weight_hh{end}")
            ]
            scale = max(float(matrix.detach().abs().max()) for matrix in both) / 3
            matrix = getattr(layer, name)[start : start + layer.hidden_size].detach()
            gates.append((matrix / scale).round() * scale - matrix)
        found.append(torch.cat(gates))
    return found[0], found[1]


def previous(layer: nn.Module, x: Tensor, side: int) -> Tensor:
    """The hidden state before each step, one after the other."""
    out = layer(x)[0][..., side * layer.hidden_size : (side + 1) * layer.hidden_size]
    zero = torch.zeros_like(out[:1])
    return (torch.cat([zero, out[:-1]]) if side == 0 else torch.cat([out[1:], zero])).flatten(0, -2)


@pytest.mark.parametrize("lengths", [None, (7, 4, 2)], ids=["even", "packed"])
@pytest.mark.parametrize("name", LAYERS)
def test_each_bias_gets_what_rounding_the_weights_adds_on_average(name: str, lengths: tuple[int, ...] | None) -> None:
    torch.manual_seed(0)
    layer = LAYERS[name](6, 8, bidirectional=True, weight_bit_width=3)
    sequences = [torch.randn(length, 6) for length in lengths or (7, 7, 7)]
    data = [torch.stack(sequences, 1) if lengths is None else pack_sequence(sequences)]
    qnn.calibrate(layer, data, forward=lambda model, batch: model(batch))
    before = copy.deepcopy(layer).eval()
    report = correct_bias(layer, data, forward=lambda model, batch: model(batch))
    names = ["bias_ih", "bias_hh"] if name == "gru" else ["bias_ih"]
    assert list(report.shifts) == [f"{bias}_l0{side}" for side in ("", "_reverse") for bias in names]
    with torch.no_grad():
        x = layer.io_quant(torch.cat(sequences)).value.mean(0)
        for side, end in enumerate(("_l0", "_l0_reverse")):
            hidden = torch.cat([previous(before, sequence, side) for sequence in sequences]).mean(0)
            of_input, of_hidden = (
                matrix @ mean for matrix, mean in zip(rounding(layer, end), (x, hidden), strict=True)
            )
            found = report.shifts[f"bias_ih{end}"]
            if name != "gru":
                assert torch.allclose(found, -of_input - of_hidden, atol=1e-6)
                continue
            together = slice(0, 16)  # reset and update; the new gate has its two products apart
            assert torch.allclose(found[together], (-of_input - of_hidden)[together], atol=1e-6)
            assert torch.allclose(found[16:], -of_input[16:], atol=1e-6)
            assert torch.allclose(report.shifts[f"bias_hh{end}"][16:], -of_hidden[16:], atol=1e-6)
            assert not report.shifts[f"bias_hh{end}"][together].any()


def test_quantized_weights_alone_are_corrected_as_well() -> None:
    off = dict.fromkeys(("bias_quant", "io_quant", "gate_acc_quant", "sigmoid_quant", "tanh_quant", "cell_state_quant"))
    torch.manual_seed(0)
    layer = QuantLSTM(6, 8, num_layers=2, weight_bit_width=3, **off)
    exact = nn.LSTM(6, 8, num_layers=2)
    exact.load_state_dict(layer.state_dict())
    before = output_noise(layer, batches(), run).noise
    report = correct_bias(layer, batches())
    assert list(report.shifts) == ["bias_ih_l0", "bias_ih_l1"]
    with torch.no_grad():
        noise = sum(float((layer.eval()(x)[0] - exact(x)[0]).square().sum()) for x in batches())
    assert noise < before


def test_a_second_correction_finds_next_to_nothing_to_do() -> None:
    model = Reader("gru")
    qnn.calibrate(model, batches())
    first = correct_bias(model, batches()).shifts
    second = correct_bias(model, batches()).shifts
    assert first.keys() == second.keys()
    for path, shift in second.items():
        assert shift.abs().max() < first[path].abs().max() / 20, path


def test_layers_without_biases_are_left() -> None:
    model = nn.Sequential(QuantGRU(6, 8, bias=False), Last(), qnn.QuantLinear(8, 3))
    qnn.calibrate(model, batches())
    report = correct_bias(model, batches())
    assert list(report.shifts) == ["2"]
    assert report.left == ("0",)


def test_the_parts_of_a_recurrent_layer_are_told_apart() -> None:
    model = Reader("lstm")
    qnn.calibrate(model, batches())
    names = [row.name for row in sensitivity(model, batches()).layers]
    assert "head" in names
    assert any(name.startswith("layer.") for name in names)


@pytest.mark.parametrize("layer", LAYERS)
def test_packed_sequences_are_one_input(layer: str) -> None:
    torch.manual_seed(0)
    model = LAYERS[layer](6, 8)
    packed = [pack_sequence([torch.randn(n, 6) for n in (5, 2, 4)], enforce_sorted=False) for _ in range(2)]
    report = qnn.calibrate(model, packed)
    assert all(threshold.isfinite().all() and (threshold > 0).all() for threshold in report.thresholds.values())
    assert "bias_ih_l0" in correct_bias(model, packed).shifts
    assert qnn.summary(model, packed[0]).row("").macs == model.count_products(torch.zeros(11, 6))
