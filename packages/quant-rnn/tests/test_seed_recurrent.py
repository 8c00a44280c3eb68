"""The examples of the tutorial on recurrent layers that Brevitas has, with our layers."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest
import torch
from torch import nn

import quant_nn as qnn
from quant_core.quant import SignedBinaryWeightPerTensorConst
from quant_core.tensor import QuantTensor
from quant_rnn import QuantLSTM, QuantRNN


def sublayer(module: nn.Module, number: int, from_the_end: bool) -> Any:
    return module.layers[number][1 if from_the_end else 0]


def test_which_quantizers_are_shared() -> None:
    rnn = QuantRNN(input_size=10, hidden_size=20, num_layers=2, bidirectional=True)
    first, last = sublayer(rnn, 0, False), sublayer(rnn, 1, True)
    assert first.gate_params.input_weight.weight_quant is not last.gate_params.input_weight.weight_quant
    assert first.cell.gate_acc_quant is not last.cell.gate_acc_quant
    assert first.gate_params.bias_quant is not last.gate_params.bias_quant
    assert first.io_quant is last.io_quant


@pytest.mark.parametrize(
    ("options", "count"),
    [({}, 600), ({"bidirectional": True}, 1200), ({"bidirectional": True, "shared_input_hidden_weights": True}, 1000)],
)
def test_how_many_weights_there_are(options: dict[str, bool], count: int) -> None:
    rnn = QuantRNN(10, 20, **options)
    assert sum(p.numel() for name, p in rnn.named_parameters() if "weight" in name) == count


def test_options_by_prefix() -> None:
    rnn = QuantRNN(10, 20, weight_bit_width=4, weight_scaling_per_output_channel=True, io_bit_width=6)
    layer = sublayer(rnn, 0, False)
    from_input = layer.gate_params.input_weight.quant_weight()
    from_hidden = layer.gate_params.hidden_weight.quant_weight()
    assert from_input.bit_width == from_hidden.bit_width == 4
    assert layer.io_quant.bit_width() == 6
    assert from_input.scale.shape == (20, 1)
    assert torch.equal(from_input.scale, from_hidden.scale)
    largest = torch.cat([rnn.weight_ih_l0, rnn.weight_hh_l0], dim=1).abs().amax(dim=1, keepdim=True)
    assert torch.equal(from_input.scale, largest / 7)


def test_shapes() -> None:
    outputs, hidden = QuantRNN(10, 20, batch_first=True)(torch.randn(2, 5, 10))
    assert outputs.shape == (2, 5, 20)
    assert hidden.shape == (1, 2, 20)


def test_quantized_tensors_out_and_in() -> None:
    rnn = QuantRNN(10, 20, batch_first=True, return_quant_tensor=True)
    for x in (torch.randn(2, 5, 10), qnn.QuantIdentity(return_quant_tensor=True)(torch.randn(2, 5, 10))):
        outputs, hidden = rnn(x)
        assert isinstance(outputs, QuantTensor)
        assert isinstance(hidden, QuantTensor)
        assert outputs.is_valid
        assert hidden.is_valid
        assert outputs.bit_width == 8


def test_an_initial_state_of_ones_own() -> None:
    rnn = QuantRNN(10, 20, batch_first=True).eval()
    x, state = torch.randn(2, 5, 10), torch.randn(1, 2, 20)
    assert not torch.equal(rnn(x, state)[0], rnn(x)[0])


@pytest.mark.parametrize(("float_type", "quant_type"), [(nn.RNN, QuantRNN), (nn.LSTM, QuantLSTM)])
def test_a_float_checkpoint_loads_strictly(float_type: type[nn.Module], quant_type: type[nn.Module]) -> None:
    plain, layer = float_type(10, 20), quant_type(10, 20)
    layer.load_state_dict(plain.state_dict())
    assert torch.equal(layer.weight_ih_l0, plain.weight_ih_l0)


def test_without_quantizers_it_is_the_float_layer() -> None:
    torch.manual_seed(123456)
    plain = nn.RNN(input_size=10, hidden_size=20)
    rnn = QuantRNN(10, 20, weight_quant=None, io_quant=None, gate_acc_quant=None, bias_quant=None)
    rnn.load_state_dict(plain.state_dict())
    x = torch.randn(5, 2, 10)
    for mine, theirs in zip(rnn(x), plain(x), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)


def test_binary_weights() -> None:
    rnn = QuantRNN(10, 20, weight_quant=SignedBinaryWeightPerTensorConst)
    outputs, _ = rnn(torch.randn(5, 2, 10))
    outputs.sum().backward()
    weight = sublayer(rnn, 0, False).gate_params.hidden_weight.quant_weight()
    assert weight.int().unique().tolist() == [-1, 1]
    assert rnn.weight_hh_l0.grad.abs().sum() > 0


def test_the_arguments_are_those_of_the_tutorial() -> None:
    tutorial = """input_size hidden_size num_layers bias batch_first bidirectional weight_quant bias_quant io_quant gate_acc_quant
    sigmoid_quant tanh_quant cell_state_quant coupled_input_forget_gates cat_output_cell_states shared_input_hidden_weights
    shared_intra_layer_weight_quant shared_intra_layer_gate_acc_quant shared_cell_state_quant return_quant_tensor device dtype"""
    arguments = inspect.signature(QuantLSTM).parameters
    assert set(tutorial.split()) <= set(arguments)
    assert arguments["shared_cell_state_quant"].default is arguments["cat_output_cell_states"].default is True


def quantizers(layer: nn.Module, gate: str) -> Any:
    return getattr(sublayer(layer, 0, False), f"{gate}_gate_params").input_weight.weight_quant


def test_gates_have_their_own_quantizers_unless_they_share_them() -> None:
    apart = QuantLSTM(3, 4)
    assert quantizers(apart, "input") is not quantizers(apart, "cell")
    assert sublayer(apart, 0, False).cell.input_acc_quant is not sublayer(apart, 0, False).cell.output_acc_quant
    shared = QuantLSTM(3, 4, shared_intra_layer_weight_quant=True, shared_intra_layer_gate_acc_quant=True)
    assert quantizers(shared, "input") is quantizers(shared, "cell")
    assert sublayer(shared, 0, False).cell.input_acc_quant is sublayer(shared, 0, False).cell.output_acc_quant
    largest = torch.cat([shared.weight_ih_l0, shared.weight_hh_l0], dim=1).abs().max()
    assert torch.equal(quantizers(shared, "output").scale(), largest / 127)


def test_directions_share_the_weights_of_their_input_with_its_quantizer() -> None:
    lstm = QuantLSTM(3, 4, bidirectional=True, shared_input_hidden_weights=True)
    first, second = lstm.layers[0]
    for gate in ("input", "forget", "cell", "output"):
        one, other = (getattr(side, f"{gate}_gate_params") for side in (first, second))
        assert one.input_weight is other.input_weight
        assert one.hidden_weight.weight_quant is other.hidden_weight.weight_quant


def test_cell_states_of_several_quantizers_come_one_by_one() -> None:
    lstm = QuantLSTM(3, 4, num_layers=2, shared_cell_state_quant=False, cat_output_cell_states=False)
    _, (hidden, cells) = lstm(torch.randn(5, 2, 3))
    assert [cell.shape for cell in cells] == [(2, 4), (2, 4)]
    lstm(torch.randn(5, 2, 3), (hidden, cells))


def test_coupled_gates() -> None:
    off = dict.fromkeys(("weight_quant", "bias_quant", "io_quant", "gate_acc_quant", "tanh_quant", "cell_state_quant"))
    lstm = QuantLSTM(3, 4, coupled_input_forget_gates=True, sigmoid_quant=None, **off)
    assert lstm.weight_ih_l0.shape == (12, 3)
    x, (h, c) = torch.randn(1, 2, 3), torch.randn(2, 1, 2, 4).unbind(0)
    _, (_, after) = lstm(x, (h, c))
    i, g, _ = (x[0] @ lstm.weight_ih_l0.T + h[0] @ lstm.weight_hh_l0.T + lstm.bias_ih_l0 + lstm.bias_hh_l0).chunk(3, 1)
    i = i.sigmoid()
    torch.testing.assert_close(after[0], (1 - i) * c[0] + i * g.tanh())


def test_copies_compute_the_same_and_go_their_own_way() -> None:
    lstm = QuantLSTM(3, 4, num_layers=2, bidirectional=True, shared_input_hidden_weights=True)
    x = torch.randn(5, 2, 3)
    lstm(x)
    lstm.eval()
    for other in (copy.deepcopy(lstm), pickle.loads(pickle.dumps(lstm))):
        assert torch.equal(other(x)[0], lstm(x)[0])
        with torch.no_grad():
            other.weight_hh_l0.mul_(2)
        assert not torch.equal(other(x)[0], lstm(x)[0])
