"""All steps in one operation give the values of one step after the other, to the bit, and their gradients: settled quantizers."""

from __future__ import annotations

import copy
import ctypes
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from quant_core.errors import ConfigurationError
from quant_rnn import QuantGRU, QuantLSTM, QuantRNN, direction
from quant_rnn.native import Steps, steps
from quant_rnn.native.agreement import agrees

pytestmark = pytest.mark.skipif(steps() is None, reason="there is no C compiler, or QUANT_NATIVE=0")

NARROW = {f"{name}_bit_width": 3 for name in ("io", "gate_acc", "sigmoid", "tanh", "cell_state")}
LAYERS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "LSTM": (QuantLSTM, {}),
    "two layers, two directions": (QuantLSTM, {"num_layers": 2, "bidirectional": True}),
    "few bits": (QuantLSTM, NARROW),
    "coupled": (QuantLSTM, {"coupled_input_forget_gates": True}),
    "coupled, few bits": (QuantLSTM, {"coupled_input_forget_gates": True, **NARROW}),
    "coupled, float sigmoid": (QuantLSTM, {"coupled_input_forget_gates": True, "sigmoid_quant": None}),
    "float functions": (QuantLSTM, {"sigmoid_quant": None, "tanh_quant": None}),
    "float output": (QuantLSTM, {"io_quant": None, "bias_quant": None}),
    "one accumulator": (QuantLSTM, {"shared_intra_layer_gate_acc_quant": True}),
    "float accumulators": (QuantLSTM, {"gate_acc_quant": None}),
    "float cell state": (QuantLSTM, {"cell_state_quant": None}),
    "wide": (QuantLSTM, {f"{name}_bit_width": 16 for name in ("io", "gate_acc", "sigmoid", "tanh", "cell_state")}),
    "projected": (QuantLSTM, {"proj_size": 5, "num_layers": 2, "bidirectional": True}),
    "projected, coupled": (QuantLSTM, {"proj_size": 5, "coupled_input_forget_gates": True, "batch_first": True}),
    "projected, float output": (QuantLSTM, {"proj_size": 5, "io_quant": None, "bias_quant": None}),
    "GRU": (QuantGRU, {"num_layers": 2, "bidirectional": True}),
    "GRU, few bits": (QuantGRU, {f"{name}_bit_width": 3 for name in ("io", "gate_acc", "sigmoid", "tanh")}),
    "GRU, float functions": (QuantGRU, {"sigmoid_quant": None, "tanh_quant": None, "bias": False}),
    "GRU, float output": (QuantGRU, {"io_quant": None, "bias_quant": None}),
    "GRU, float accumulators": (QuantGRU, {"gate_acc_quant": None}),
    "RNN": (QuantRNN, {"num_layers": 2, "bidirectional": True}),
    "ReLU": (QuantRNN, {"nonlinearity": "relu", "io_bit_width": 3}),
    "RNN, float output": (QuantRNN, {"io_quant": None, "bias_quant": None}),
    "ReLU, float accumulators": (QuantRNN, {"nonlinearity": "relu", "gate_acc_quant": None}),
}
every_layer = pytest.mark.parametrize("name", LAYERS)


def learned(name: str) -> nn.Module:
    """A layer with scales so small that each quantizer clamps something."""
    kind, options = LAYERS[name]
    torch.manual_seed(0)
    prefixes = ["io", "gate_acc"] + (["sigmoid", "tanh"] if kind is not QuantRNN else [])
    prefixes += ["cell_state"] if kind is QuantLSTM else []
    collecting = {f"{prefix}_collect_stats_steps": 2 for prefix in prefixes if f"{prefix}_quant" not in options}
    layer: nn.Module = kind(7, 19, **options, **collecting)
    for _ in range(3):
        layer(torch.randn(3, 3, 7))
    with torch.no_grad():
        for key, parameter in layer.named_parameters():
            if key.endswith("scaling_impl.value"):
                parameter.mul_(0.6)
    return layer


def outcome(
    layer: nn.Module, stepwise: bool, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """All results, and the gradients of all parameters and inputs for random gradients of the results."""
    dtype = next(layer.parameters()).dtype
    generator = torch.Generator().manual_seed(1)
    count = layer.sizes.layers * layer.sizes.directions
    x = torch.randn(*((5, 9) if layer.batch_first else (9, 5)), 7, generator=generator).to(dtype).requires_grad_()
    features = (layer.sizes.outputs, layer.sizes.hidden)[: len(layer.state_names)]
    state = [torch.randn(count, 5, size, generator=generator).to(dtype).requires_grad_() for size in features]
    with monkeypatch.context() as patch:
        if stepwise:
            patch.setattr(direction, "run_natively", lambda *inputs, **options: None)
        results = torch.utils._pytree.tree_leaves(layer(x, state if len(state) > 1 else state[0]))
    layer.zero_grad()
    sum((part * torch.randn(part.shape, generator=generator)).sum() for part in results).backward()
    found = {"x": x, **{f"state {n}": part for n, part in enumerate(state)}, **dict(layer.named_parameters())}
    return results, {key: part.grad for key, part in found.items() if part.grad is not None}


@every_layer
def test_values_are_equal_to_the_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = learned(name)
    natively, _ = outcome(layer, False, monkeypatch)
    one_by_one, _ = outcome(layer, True, monkeypatch)
    for mine, theirs in zip(natively, one_by_one, strict=True):
        assert torch.equal(mine, theirs)


@every_layer
def test_gradients_are_those_in_double_precision(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = learned(name)
    _, natively = outcome(layer, False, monkeypatch)
    _, exact = outcome(copy.deepcopy(layer).double(), True, monkeypatch)
    assert natively.keys() == exact.keys()
    for key, gradient in natively.items():
        torch.testing.assert_close(
            gradient.double(), exact[key], rtol=1e-4, atol=1e-5, msg=lambda m, key=key: f"{key}: {m}"
        )


@every_layer
def test_without_gradient(name: str) -> None:
    layer = learned(name).eval()
    x = torch.randn(4, 2, 7)
    with torch.no_grad():
        plain = layer(x)[0]
    assert torch.equal(plain, layer(x)[0])


def test_nothing_but_not_a_number_becomes_not_a_number() -> None:
    layer = learned("LSTM").eval()
    x = torch.randn(4, 2, 7)
    x[2, 1, 3] = torch.nan
    out, _ = layer(x)
    assert out[:2].isfinite().all()
    assert out[:, 0].isfinite().all()
    assert out[2:, 1].isnan().all()


def test_a_hook_on_a_quantizer_sees_each_step() -> None:
    layer = learned("LSTM")
    seen: list[int] = []
    quantizer = layer.layers[0][0].cell.cell_acc_quant
    handle = quantizer.register_forward_hook(lambda *call: seen.append(1))
    layer(torch.randn(6, 2, 7))
    handle.remove()
    assert len(seen) == 6


@pytest.mark.parametrize("name", ["LSTM", "projected, coupled", "GRU, few bits", "ReLU"])
def test_it_is_one_operation_of_a_compiled_graph(name: str) -> None:
    torch._dynamo.reset()
    layer = learned(name)
    x = torch.randn(50, 2, 7)
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, inputs: Any) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    compiled = torch.compile(layer, fullgraph=True, backend=keep)
    assert torch.equal(compiled(x)[0], layer(x)[0])
    (graph,) = graphs
    assert sum("quant_rnn" in str(node.target) for node in graph.graph.nodes) == len(layer.directions)


@pytest.mark.parametrize("name", ["LSTM", "projected", "projected, coupled", "GRU, float functions", "ReLU"])
def test_products_of_torch_are_those_of_its_blas(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = learned(name)
    results, gradients = outcome(layer, False, monkeypatch)
    monkeypatch.setattr(library(), "multiply", None)
    by_torch, their_gradients = outcome(layer, False, monkeypatch)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(results, by_torch, strict=True))
    assert gradients.keys() == their_gradients.keys()
    assert all(torch.equal(gradient, their_gradients[key]) for key, gradient in gradients.items())


def library() -> Steps:
    found = steps()
    assert found is not None
    return found


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """As if the steps had not been compared with torch yet."""
    monkeypatch.setattr(library(), "multiply", library().multiply)
    agrees.cache_clear()
    yield monkeypatch
    agrees.cache_clear()


def test_steps_that_compute_something_else_are_not_used(fresh: pytest.MonkeyPatch) -> None:
    right = Steps.run

    def without_the_last(self: Steps, model: Any, ops: range, rows: int, order: range) -> None:
        right(self, model, ops[:-1], rows, order)

    assert agrees()
    agrees.cache_clear()
    fresh.setattr(Steps, "run", without_the_last)
    assert not agrees()


@pytest.mark.skipif(sys.byteorder != "little", reason="products are torch's there")
def test_products_that_are_rounded_otherwise_are_left_to_torch(fresh: pytest.MonkeyPatch) -> None:
    """As those of another BLAS are: here in the last bit."""
    exact = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 13)
    blas = library().multiply
    assert blas is not None
    product = exact(blas)

    @exact
    def multiply(*operands: int) -> None:
        product(*operands)
        first = ctypes.c_float.from_address(operands[11])
        first.value += 1e-6 * abs(first.value)

    fresh.setattr(library(), "multiply", ctypes.cast(multiply, ctypes.c_void_p).value)
    assert agrees()
    assert library().multiply is None


def test_the_comparison_does_not_depend_on_where_a_layer_is_first_called(fresh: pytest.MonkeyPatch) -> None:
    layer, x = QuantLSTM(4, 5).eval(), torch.randn(3, 2, 4)
    saved: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.inference_mode():
        layer(x)
    agrees.cache_clear()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        layer(x)
        first = len(saved)
        layer(x)
    assert len(saved) == 2 * first
    agrees.cache_clear()
    torch.set_default_dtype(torch.float64)
    try:
        assert agrees()
    finally:
        torch.set_default_dtype(torch.float32)


def test_gradients_of_gradients_are_refused_with_what_to_do() -> None:
    layer, x = QuantRNN(4, 5).eval(), torch.randn(3, 2, 4, requires_grad=True)
    out = layer(x)[0].pow(3).sum()
    with pytest.raises(ConfigurationError) as caught:
        torch.autograd.grad(out, x, create_graph=True)
    assert str(caught.value) == (
        "the native steps of recurrent layers have no gradients of gradients\n"
        "  their backward pass through time is a kernel, which create_graph=True cannot look into\n"
        "  Set QUANT_NATIVE=0 in the environment, so that the steps are operations of torch."
    )
