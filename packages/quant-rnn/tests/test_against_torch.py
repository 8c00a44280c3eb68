"""Without quantizers a layer computes what torch.nn computes, whatever the arguments: by torch's operator, and step by step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from quant_rnn import QuantGRU, QuantLSTM, QuantRNN

# torch says so of its own LSTM, too.
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")

ABSOLUTE = 1e-6
OFF: dict[str, dict[str, None]] = {
    "RNN": dict.fromkeys(("weight_quant", "bias_quant", "io_quant", "gate_acc_quant")),
    "GRU": dict.fromkeys(("weight_quant", "bias_quant", "io_quant", "gate_acc_quant", "sigmoid_quant", "tanh_quant")),
}
OFF["LSTM"] = {**OFF["GRU"], "cell_state_quant": None}


class StepwiseRNN(QuantRNN):
    def _runs_in_float(self) -> bool:
        return False


class StepwiseGRU(QuantGRU):
    def _runs_in_float(self) -> bool:
        return False


class StepwiseLSTM(QuantLSTM):
    def _runs_in_float(self) -> bool:
        return False


KINDS: dict[str, tuple[type[nn.Module], tuple[type[nn.Module], ...]]] = {
    "RNN": (nn.RNN, (QuantRNN, StepwiseRNN)),
    "GRU": (nn.GRU, (QuantGRU, StepwiseGRU)),
    "LSTM": (nn.LSTM, (QuantLSTM, StepwiseLSTM)),
}


@st.composite
def layers(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    kind = draw(st.sampled_from(sorted(KINDS)))
    options: dict[str, Any] = {
        "input_size": draw(st.integers(1, 5)),
        "hidden_size": draw(st.integers(2, 5)),
        "num_layers": draw(st.integers(1, 3)),
        "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "bidirectional": draw(st.booleans()),
    }
    if kind == "LSTM":
        options["proj_size"] = draw(st.sampled_from([0, 1]))
    if kind == "RNN":
        options["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
    return kind, options


def pairs(kind: str, options: dict[str, Any]) -> list[tuple[nn.Module, nn.Module]]:
    float_type, quant_types = KINDS[kind]
    plain = float_type(**options)
    found = []
    for quant_type in quant_types:
        layer = quant_type(**options, **OFF[kind])
        layer.load_state_dict(plain.state_dict())
        found.append((plain, layer))
    return found


def leaves(result: Any) -> list[Tensor]:
    return [part for part in torch.utils._pytree.tree_leaves(result) if part is not None]


def assert_same(one: Any, other: Any) -> None:
    for mine, theirs in zip(leaves(one), leaves(other), strict=True):
        torch.testing.assert_close(mine, theirs, atol=ABSOLUTE, rtol=0)


def initial(kind: str, options: dict[str, Any], *batch: int) -> Any:
    count = options["num_layers"] * (1 + options["bidirectional"])
    hidden = torch.randn(count, *batch, options.get("proj_size", 0) or options["hidden_size"])
    return (hidden, torch.randn(count, *batch, options["hidden_size"])) if kind == "LSTM" else hidden


@settings(max_examples=40, deadline=None)
@given(layers(), st.integers(1, 4), st.integers(1, 3), st.booleans(), st.integers(0, 2**16))
def test_values_and_gradients(
    case: tuple[str, dict[str, Any]], steps: int, batch: int, with_state: bool, seed: int
) -> None:
    kind, options = case
    torch.manual_seed(seed)
    shape = (batch, steps) if options["batch_first"] else (steps, batch)
    x = torch.randn(*shape, options["input_size"])
    state = initial(kind, options, batch) if with_state else None
    for plain, layer in pairs(kind, options):
        assert_same(layer(x, state), plain(x, state))
        plain.zero_grad()
        for network in (plain, layer):
            sum(part.square().sum() for part in leaves(network(x, state))).backward()
        wanted = dict(plain.named_parameters())
        for name, parameter in layer.named_parameters():
            torch.testing.assert_close(parameter.grad, wanted[name].grad, atol=1e-5, rtol=1e-5)


@settings(max_examples=15, deadline=None)
@given(layers(), st.lists(st.integers(1, 4), min_size=1, max_size=4), st.booleans(), st.booleans())
def test_sequences_of_several_lengths(
    case: tuple[str, dict[str, Any]], lengths: list[int], in_order: bool, with_state: bool
) -> None:
    kind, options = case
    lengths = sorted(lengths, reverse=True) if in_order else lengths
    packed = pack_sequence([torch.randn(n, options["input_size"]) for n in lengths], enforce_sorted=in_order)
    state = initial(kind, options, len(lengths)) if with_state else None
    for plain, layer in pairs(kind, options):
        assert_same(layer(packed, state), plain(packed, state))


@settings(max_examples=10, deadline=None)
@given(layers(), st.booleans())
def test_a_sequence_without_batch(case: tuple[str, dict[str, Any]], with_state: bool) -> None:
    kind, options = case
    x = torch.randn(3, options["input_size"])
    state = initial(kind, options) if with_state else None
    for plain, layer in pairs(kind, options):
        assert_same(layer(x, state), plain(x, state))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_it_starts_from_the_same_random_numbers(kind: str) -> None:
    float_type, (quant_type, _) = KINDS[kind]
    torch.manual_seed(0)
    plain = float_type(3, 4, 2, bidirectional=True)
    torch.manual_seed(0)
    layer = quant_type(3, 4, 2, bidirectional=True)
    wanted = plain.state_dict()
    for name, parameter in layer.state_dict().items():
        if name in wanted:
            assert torch.equal(parameter, wanted.pop(name))
    assert wanted == {}


def test_dropout_between_layers_is_that_of_torch() -> None:
    x = torch.randn(4, 2, 3)
    for plain, layer in pairs("LSTM", {"input_size": 3, "hidden_size": 4, "num_layers": 2, "dropout": 0.5}):
        results = []
        for network in (plain, layer):
            torch.manual_seed(0)
            results.append(network(x))
        assert_same(*results)


@settings(max_examples=10, deadline=None)
@given(layers())
def test_the_weights_are_listed_as_torch_lists_them(case: tuple[str, dict[str, Any]]) -> None:
    for plain, layer in pairs(*case):
        layer.flatten_parameters()
        for mine, theirs in zip(layer.all_weights, plain.all_weights, strict=True):
            assert len(mine) == len(theirs)
            assert all(torch.equal(one, other) for one, other in zip(mine, theirs, strict=True))
