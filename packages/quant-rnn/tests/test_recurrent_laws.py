"""What holds for every quantized recurrent layer."""

from __future__ import annotations

import copy
import io
from importlib.metadata import distribution, entry_points
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence, unpack_sequence

import quant_rnn
from quant_core.proxies import QuantProxy
from quant_core.tensor import QuantTensor
from quant_rnn import QuantGRU, QuantLSTM, QuantRNN

LAYERS: dict[str, Any] = {
    "RNN": lambda **options: QuantRNN(3, 4, **options),
    "ReLU RNN": lambda **options: QuantRNN(3, 4, nonlinearity="relu", **options),
    "GRU": lambda **options: QuantGRU(3, 4, **options),
    "LSTM": lambda **options: QuantLSTM(3, 4, **options),
    "coupled LSTM": lambda **options: QuantLSTM(3, 4, coupled_input_forget_gates=True, **options),
    "projected LSTM": lambda **options: QuantLSTM(3, 4, proj_size=2, **options),
}
every_layer = pytest.mark.parametrize("kind", LAYERS)


def settled(kind: str, **options: Any) -> nn.Module:
    """A layer that has learned its scales, in eval mode."""
    torch.manual_seed(0)
    layer: nn.Module = LAYERS[kind](**options)
    for _ in range(3):
        layer(torch.randn(6, 2, 3))
    return layer.eval()


def collecting(kind: str, steps: int) -> dict[str, int]:
    """The options of a layer that collects statistics for so many calls of each quantizer."""
    prefixes = ("io", "gate_acc") + (() if "RNN" in kind else ("sigmoid", "tanh"))
    prefixes += ("cell_state",) if "LSTM" in kind else ()
    return {f"{prefix}_collect_stats_steps": steps for prefix in prefixes}


def finished(kind: str, **options: Any) -> nn.Module:
    """A layer that has collected all of its statistics, in training mode."""
    return settled(kind, **collecting(kind, 6), **options).train()


def leaves(result: Any) -> list[Any]:
    return torch.utils._pytree.tree_leaves(result, is_leaf=lambda part: isinstance(part, QuantTensor))


def assert_equal(one: Any, other: Any) -> None:
    for mine, theirs in zip(leaves(one), leaves(other), strict=True):
        assert torch.equal(mine, theirs)


@every_layer
@settings(max_examples=3, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=2, max_size=4))
def test_a_stream_in_pieces_is_the_whole_sequence(kind: str, pieces: list[int]) -> None:
    layer = settled(kind, num_layers=2)
    x = torch.randn(sum(pieces), 2, 3)
    whole, last = layer(x)
    outputs, state = [], None
    for piece in x.split(pieces):
        out, state = layer(piece, state)
        outputs.append(out)
    assert torch.equal(torch.cat(outputs), whole)
    assert_equal(state, last)


@every_layer
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_packed_sequence_is_each_one_alone(kind: str, bidirectional: bool) -> None:
    layer = settled(kind, num_layers=2, bidirectional=bidirectional)
    sequences = [torch.randn(n, 3) for n in (2, 5, 1, 5)]
    packed, states = layer(pack_sequence(sequences, enforce_sorted=False))
    for index, (alone, out) in enumerate(zip(sequences, unpack_sequence(packed), strict=True)):
        wanted, last = layer(alone)
        torch.testing.assert_close(out, wanted, rtol=0, atol=1e-6)
        for mine, theirs in zip(leaves(states), leaves(last), strict=True):
            torch.testing.assert_close(mine[:, index], theirs, rtol=0, atol=1e-6)


def test_a_packed_sequence_has_no_order_of_axes() -> None:
    layer = settled("LSTM")
    packed = pack_sequence([torch.randn(n, 3) for n in (4, 2)])
    wanted, states = layer(packed)
    layer.batch_first = True
    out, same = layer(packed)
    assert torch.equal(out.data, wanted.data)
    assert_equal(same, states)


@every_layer
def test_a_packed_sequence_trains(kind: str) -> None:
    layer = LAYERS[kind](num_layers=2, bidirectional=True)
    packed, _ = layer(pack_sequence([torch.randn(n, 3) for n in (3, 2)]))
    packed.data.square().sum().backward()
    assert all(p.grad is not None for p in layer.parameters() if p.dim() > 0)


@every_layer
@pytest.mark.parametrize("training", [False, True])
def test_what_comes_out_lies_on_its_grid(kind: str, training: bool) -> None:
    layer = settled(kind, num_layers=2, bidirectional=True, return_quant_tensor=True).train(training)
    results = leaves(layer(torch.randn(4, 2, 3)))
    assert all(isinstance(part, QuantTensor) and part.is_valid for part in results)
    assert torch.equal(results[0].value, results[0].int() * results[0].scale)


@every_layer
def test_one_scale_when_statistics_are_complete(kind: str) -> None:
    layer = finished(kind, num_layers=2, bidirectional=True, return_quant_tensor=True)
    out, _ = layer(torch.randn(4, 2, 3))
    assert out.per_tensor
    assert torch.equal(out.scale, layer.io_quant.scale())


@every_layer
def test_batch_first_and_no_batch(kind: str) -> None:
    layer = settled(kind, return_quant_tensor=True)
    other = copy.deepcopy(layer)
    other.batch_first = True
    x = torch.randn(4, 2, 3)
    out, state = layer(x)
    swapped, same = other(x.transpose(0, 1))
    assert torch.equal(swapped.value, out.value.transpose(0, 1))
    assert_equal([part.value for part in leaves(same)], [part.value for part in leaves(state)])
    alone, last = layer(x[:, 0])
    assert alone.shape == (4, out.shape[-1])
    torch.testing.assert_close(alone.value, out.value[:, 0], rtol=0, atol=1e-6)
    assert all(part.ndim == 2 for part in leaves(last))


@every_layer
def test_training_resumes_from_a_checkpoint_to_the_bit(kind: str) -> None:
    options = {"num_layers": 2, **collecting(kind, 20)}
    one, other = LAYERS[kind](**options), LAYERS[kind](**options)

    def train(layer: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> Tensor:
        torch.manual_seed(seed)
        optimizer.zero_grad()
        loss: Tensor = layer(torch.randn(6, 2, 3))[0].square().sum()
        loss.backward()
        optimizer.step()
        return loss

    first, second = (torch.optim.SGD(layer.parameters(), lr=0.01) for layer in (one, other))
    train(one, first, 0)
    file = io.BytesIO()
    torch.save(one.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    for seed in range(1, 5):
        assert torch.equal(train(one, first, seed), train(other, second, seed))


@every_layer
def test_gradients_reach_everything_that_learns(kind: str) -> None:
    layer = finished(kind, num_layers=2, bidirectional=True)
    x = torch.randn(8, 4, 3, requires_grad=True)
    layer(x)[0].square().sum().backward()
    assert x.grad is not None
    assert {name for name, p in layer.named_parameters() if p.grad is None} == set()


@every_layer
def test_half_precision_under_autocast(kind: str) -> None:
    layer = finished(kind)
    x = torch.randn(4, 2, 3)
    wanted = layer(x)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, _ = layer(x)
    out.float().sum().backward()
    torch.testing.assert_close(out.float(), wanted, atol=0.1, rtol=0)


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_it_is_compiled_as_one_graph(kind: str) -> None:
    torch._dynamo.reset()
    layer = settled(kind)
    x = torch.randn(2, 2, 3)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x)[0], layer(x)[0])


def test_quantized_weights_alone_are_compiled_and_train() -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    kinds = ("io", "bias", "gate_acc", "sigmoid", "tanh", "cell_state")
    layer = QuantLSTM(3, 4, **dict.fromkeys(f"{kind}_quant" for kind in kinds))
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x, gradients = torch.randn(3, 2, 3), []
    for run in (layer, compiled):
        layer.zero_grad()
        run(x)[0].square().sum().backward()
        gradients.append([p.grad for p in layer.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@every_layer
def test_it_is_exported_as_one_graph(kind: str) -> None:
    layer = settled(kind)
    x = torch.randn(3, 2, 3)
    program = torch.export.export(layer, (x,))
    torch.testing.assert_close(program.module()(x)[0], layer(x)[0])


@every_layer
def test_a_layer_of_one_line(kind: str) -> None:
    text = repr(LAYERS[kind](weight_bit_width=4))
    assert "\n" not in text
    assert "weight: int4 per tensor" in text
    assert "io: int8 per tensor" in text


@every_layer
def test_weights_drawn_again_have_new_scales(kind: str) -> None:
    torch.manual_seed(0)
    layer = LAYERS[kind](weight_scaling_per_output_channel=True)
    proxy = next(m for m in layer.modules() if isinstance(m, QuantProxy) and m.kind == "weight")
    before = proxy.scale()
    torch.manual_seed(1)
    layer.reset_parameters()
    assert not torch.equal(proxy.scale(), before)


def test_parametrized_weights_are_the_ones_that_are_quantized() -> None:
    class Twice(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * x

    layer = settled("LSTM")
    scale = layer.layers[0][0].cell_gate_params.input_weight.weight_quant.scale()
    for name in ("weight_ih_l0", "weight_hh_l0"):
        nn.utils.parametrize.register_parametrization(layer, name, Twice())
    assert torch.equal(layer.layers[0][0].cell_gate_params.input_weight.weight_quant.scale(), 2 * scale)


def test_the_package_is_registered_and_typed() -> None:
    assert quant_rnn.__version__ == distribution("quant-rnn").version
    assert [p.value for p in entry_points(group="quant") if p.dist and p.dist.name == "quant-rnn"] == [
        "quant_rnn.plugin"
    ]
