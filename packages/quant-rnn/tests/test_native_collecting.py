"""Steps that collect statistics, in one operation: the values, averages and gradients of one step after the other."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence
from torch.utils.checkpoint import checkpoint

from quant_core.components import AbsMax, ParameterFromRuntimeStatsScaling
from quant_core.errors import InputError
from quant_core.tensor import QuantTensor
from quant_rnn import QuantGRU, QuantLSTM, QuantRNN
from quant_rnn.native import steps

pytestmark = pytest.mark.skipif(steps() is None, reason="there is no C compiler, or QUANT_NATIVE=0")

NARROW = {f"{name}_bit_width": 3 for name in ("io", "gate_acc", "sigmoid", "tanh")}
LAYERS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "everything": (QuantLSTM, {}),
    "two layers, two directions": (QuantLSTM, {"num_layers": 2, "bidirectional": True}),
    "one accumulator": (QuantLSTM, {"shared_intra_layer_gate_acc_quant": True}),
    "few bits": (QuantLSTM, {**NARROW, "cell_state_bit_width": 3}),
    "some settle in the middle": (QuantLSTM, {"gate_acc_collect_stats_steps": 7, "cell_state_collect_stats_steps": 10}),
    "settled between two steps": (
        QuantLSTM,
        {"tanh_collect_stats_steps": 1, "io_collect_stats_steps": 4, "bidirectional": True},
    ),
    "float output": (QuantLSTM, {"io_quant": None, "bias_quant": None}),
    "float functions": (QuantLSTM, {"sigmoid_quant": None, "tanh_quant": None}),
    "quantized results": (QuantLSTM, {"return_quant_tensor": True}),
    "coupled": (QuantLSTM, {"coupled_input_forget_gates": True, "bidirectional": True}),
    "coupled, some settle": (QuantLSTM, {"coupled_input_forget_gates": True, "sigmoid_collect_stats_steps": 9}),
    "projected": (QuantLSTM, {"proj_size": 5, "num_layers": 2, "bidirectional": True}),
    "projected, quantized results": (QuantLSTM, {"proj_size": 5, "return_quant_tensor": True}),
    "GRU": (QuantGRU, {"num_layers": 2, "bidirectional": True}),
    "GRU, few bits": (QuantGRU, NARROW),
    "GRU, one accumulator": (QuantGRU, {"shared_intra_layer_gate_acc_quant": True, "gate_acc_collect_stats_steps": 42}),
    "GRU, some settle": (QuantGRU, {"gate_acc_collect_stats_steps": 7, "io_collect_stats_steps": 11}),
    "GRU, quantized results": (QuantGRU, {"return_quant_tensor": True, "bias": False}),
    "RNN": (QuantRNN, {"num_layers": 2, "bidirectional": True}),
    "RNN, some settle": (QuantRNN, {"gate_acc_collect_stats_steps": 7, "io_collect_stats_steps": 11}),
    "ReLU": (QuantRNN, {"nonlinearity": "relu", "return_quant_tensor": True}),
    "ReLU, float output": (QuantRNN, {"nonlinearity": "relu", "io_quant": None, "bias_quant": None}),
}
every_layer = pytest.mark.parametrize("name", LAYERS)


class FirstLargest(AbsMax):
    """The largest magnitude, whose gradient goes to the first element that has it."""

    def of_rows(self, rows: Tensor) -> Tensor:
        return rows.gather(1, rows.detach().abs().argmax(1, keepdim=True)).squeeze(1).abs()


def pair(name: str) -> tuple[nn.Module, nn.Module]:
    """A layer, and one that goes step by step because it has a statistic that only torch knows."""
    torch.manual_seed(0)
    kind, options = LAYERS[name]
    layer = kind(7, 19, **options)
    other = copy.deepcopy(layer)
    for module in other.modules():
        if isinstance(module, ParameterFromRuntimeStatsScaling):
            module.scaling_stats_impl = FirstLargest()
    return layer, other


def outcome(layer: nn.Module, x: Any) -> tuple[list[Any], dict[str, Tensor]]:
    """Values and scales of all results, and all gradients."""
    layer.zero_grad()
    found = torch.utils._pytree.tree_leaves(layer(x), is_leaf=lambda part: isinstance(part, QuantTensor))
    values = [part.value if isinstance(part, QuantTensor) else part for part in found]
    values = [part for part in values if isinstance(part, Tensor) and part.is_floating_point()]  # a packed one has more
    generator = torch.Generator().manual_seed(1)
    sum((part * torch.randn(part.shape, generator=generator)).sum() for part in values).backward()
    scales = [part.scale for part in found if isinstance(part, QuantTensor)]
    return [*values, *scales], {key: p.grad for key, p in layer.named_parameters() if p.grad is not None}


@every_layer
def test_three_sequences_are_those_of_one_step_after_the_other(name: str) -> None:
    natively, one_by_one = pair(name)
    for _ in range(3):
        x = torch.randn(9, 5, 7)
        (results, gradients), (wanted, exact) = outcome(natively, x), outcome(one_by_one, x)
        assert [part.shape for part in results] == [part.shape for part in wanted]
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(results, wanted, strict=True))
        state, other = natively.state_dict(), one_by_one.state_dict()
        assert all(torch.equal(state[key], other[key]) for key in other)
        assert gradients.keys() == exact.keys()
        for key, gradient in gradients.items():
            torch.testing.assert_close(gradient, exact[key], rtol=1e-3, atol=1e-3, msg=lambda m, key=key: f"{key}: {m}")


@pytest.mark.parametrize(
    "name", ["two layers, two directions", "some settle in the middle", "projected", "coupled", "GRU", "RNN"]
)
def test_sequences_of_several_lengths(name: str) -> None:
    natively, one_by_one = pair(name)
    x = pack_sequence([torch.randn(length, 7) for length in (6, 6, 4, 1)])
    (results, gradients), (wanted, exact) = outcome(natively, x), outcome(one_by_one, x)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(results, wanted, strict=True))
    for key, gradient in gradients.items():
        torch.testing.assert_close(gradient, exact[key], rtol=1e-3, atol=1e-3, msg=lambda m, key=key: f"{key}: {m}")


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", ["coupled", "GRU", "RNN"])
def test_a_forward_that_is_computed_again_collects_nothing(name: str, reentrant: bool) -> None:
    layer, _ = pair(name)
    other = copy.deepcopy(layer)
    for _ in range(2):
        x = torch.randn(9, 5, 7, requires_grad=True)
        results = []
        for one, forward in ((layer, partial(checkpoint, layer, use_reentrant=reentrant)), (other, other)):
            one.zero_grad()
            forward(x)[0].square().sum().backward()
            results.append([p.grad for p in one.parameters() if p.grad is not None] + list(one.state_dict().values()))
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(*results, strict=True))


def test_what_is_not_finite_is_refused_where_it_arises() -> None:
    layer = QuantLSTM(3, 4, io_quant=None, bias_quant=None)
    x = torch.randn(4, 2, 3)
    x[2, 0, 0] = torch.inf
    with pytest.raises(InputError) as caught:
        layer(x)
    assert (
        str(caught.value)
        == """a tensor that holds infinities or NaN has no statistic to collect
  at layers.0.0.cell (QuantLSTM)
  the statistic of step 3 is inf
  Look for infinities and NaN in what comes in, for example after a step with too large a learning rate."""
    )
    assert int(layer.layers[0][0].cell.hidden_state_tanh_quant.tensor_quant.scaling_impl.collected.count) == 2


def test_a_percentile_below_the_largest_goes_step_by_step() -> None:
    torch.manual_seed(0)
    options = {f"{kind}_high_percentile_q": 90.0 for kind in ("io", "gate_acc", "sigmoid", "tanh", "cell_state")}
    layer = QuantLSTM(3, 4, **options)
    layer(torch.randn(5, 8, 3))
    scale = layer.layers[0][0].cell.hidden_state_tanh_quant.scale()
    torch.manual_seed(0)
    largest = QuantLSTM(3, 4)
    largest(torch.randn(5, 8, 3))
    assert scale < largest.layers[0][0].cell.hidden_state_tanh_quant.scale()
