"""Any layer, any sizes: sequences in few operations are those of one step after the other, from the first statistics on."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from quant_core.components import AbsMax, ParameterFromRuntimeStatsScaling
from quant_rnn import QuantGRU, QuantLSTM, QuantRNN, direction, natively
from quant_rnn.native import steps

pytestmark = pytest.mark.skipif(steps() is None, reason="there is no C compiler, or QUANT_NATIVE=0")

KINDS: Mapping[str, tuple[type[nn.Module], Mapping[str, Any], tuple[str, ...]]] = {
    "tanh": (QuantRNN, {}, ("io", "gate_acc")),
    "ReLU": (QuantRNN, {"nonlinearity": "relu"}, ("io", "gate_acc")),
    "GRU": (QuantGRU, {}, ("io", "gate_acc", "sigmoid", "tanh")),
    "LSTM": (QuantLSTM, {}, ("io", "gate_acc", "sigmoid", "tanh", "cell_state")),
    "coupled": (
        QuantLSTM,
        {"coupled_input_forget_gates": True},
        ("io", "gate_acc", "sigmoid", "tanh", "cell_state"),
    ),
}
CALLS = {"cell_state": 3, "sigmoid": 2, "gate_acc": 12}
"""Calls of a quantizer in a step, at most, or a multiple. A step in the middle of which one settles is computed by torch, where
elements of the largest magnitude share the gradient of the scale; other tests have such steps."""


class Case(NamedTuple):
    """A layer and the lengths of its sequences."""

    kind: str
    inputs: int
    hidden: int
    options: dict[str, Any]
    lengths: list[int]
    packed: bool
    seed: int


@st.composite
def cases(draw: st.DrawFn, kind: str) -> Case:
    """Sizes, options of the layer, and for each quantizer whether there is one, its bits, and how long it collects."""
    inputs, hidden = draw(st.integers(1, 7)), draw(st.integers(2, 19))
    options: dict[str, Any] = {
        "num_layers": draw(st.integers(1, 2)),
        "bias": draw(st.booleans()),
        "bidirectional": draw(st.booleans()),
    }
    layer, fixed, quantizers = KINDS[kind]
    if layer is QuantLSTM:
        options["proj_size"] = draw(st.sampled_from([0, 1, hidden - 1]))
    if layer is not QuantRNN:
        options["shared_intra_layer_gate_acc_quant"] = draw(st.booleans())
    for name in quantizers:
        if draw(st.integers(0, 4)) == 4:
            options[f"{name}_quant"] = None
            if name == "io":
                options["bias_quant"] = None
            if name == "gate_acc":
                options.pop("shared_intra_layer_gate_acc_quant", None)
        else:
            options[f"{name}_bit_width"] = draw(st.sampled_from([2, 3, 8, 14]))
            alone = name == "gate_acc" and not options.get("shared_intra_layer_gate_acc_quant")
            options[f"{name}_collect_stats_steps"] = (1 if alone else CALLS.get(name, 1)) * draw(st.integers(1, 10))
    assume(any(f"{name}_quant" not in options for name in quantizers))  # with none of them torch's operators run
    if not options["bias"]:
        options.pop("bias_quant", None)
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    return Case(kind, inputs, hidden, {**fixed, **options}, lengths, draw(st.booleans()), draw(st.integers(0, 9)))


class FirstLargest(AbsMax):
    """The largest magnitude, whose gradient goes to the first element that has it."""

    def of_rows(self, rows: Tensor) -> Tensor:
        return rows.gather(1, rows.detach().abs().argmax(1, keepdim=True)).squeeze(1).abs()


def outcome(layer: nn.Module, x: list[Tensor], packed: bool, state: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Results, and the gradients of inputs, states and parameters."""
    leaves = [*(part.clone().requires_grad_() for part in (*x, *state)), *layer.parameters()]
    sequences, states = leaves[: len(x)], leaves[len(x) : len(x) + len(state)]
    given_input = pack_sequence(sequences, enforce_sorted=False) if packed else torch.stack(sequences, 1)
    found = torch.utils._pytree.tree_leaves(layer(given_input, states if len(states) > 1 else states[0]))
    results = [part for part in found if isinstance(part, Tensor) and part.is_floating_point()]
    generator = torch.Generator().manual_seed(1)
    total = sum((part * torch.randn(part.shape, generator=generator)).sum() for part in results)
    gradients = torch.autograd.grad(total, leaves, allow_unused=True)
    return results, [torch.zeros(()) if gradient is None else gradient for gradient in gradients]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_few_operations_are_many_steps(kind: str, data: st.DataObject) -> None:
    case = data.draw(cases(kind))
    torch.manual_seed(case.seed)
    layer = KINDS[case.kind][0](case.inputs, case.hidden, **case.options)
    other = copy.deepcopy(layer)
    for module in other.modules():
        if isinstance(module, ParameterFromRuntimeStatsScaling):
            module.scaling_stats_impl = FirstLargest()
    lengths = case.lengths if case.packed else [case.lengths[0]] * len(case.lengths)
    count = layer.sizes.layers * layer.sizes.directions
    for _ in range(2):
        x = [torch.randn(length, case.inputs) for length in lengths]
        widths = (layer.sizes.outputs, layer.sizes.hidden)[: len(layer.state_names)]
        state = [torch.randn(count, len(x), width) for width in widths]
        results, gradients = outcome(layer, x, case.packed, state)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(direction, "run_natively", lambda *inputs, **options: None)
            wanted, exact = outcome(other, x, case.packed, state)
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(results, wanted, strict=True))
        now, then = layer.state_dict(), other.state_dict()
        assert all(torch.equal(now[key], then[key]) for key in now)
        for gradient, one in zip(
            gradients, exact, strict=True
        ):  # the step loop keeps rounding errors in half precision
            torch.testing.assert_close(gradient, one, rtol=1e-3, atol=1e-3 + 1e-3 * float(one.abs().max()))


def test_all_steps_of_each_kind_are_one_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []

    def count(projected: Tensor, *others: Any) -> Any:
        counted.append(len(projected))
        return right(projected, *others)

    right = natively.all_steps
    monkeypatch.setattr(natively, "all_steps", count)
    for layer, options, quantizers in KINDS.values():
        once = layer(3, 4, **options, **{f"{name}_collect_stats_steps": 6 for name in quantizers if name != "io"})
        counted.clear()
        once(torch.randn(9, 2, 3))
        assert sum(counted) == 9
        once.eval()(torch.randn(9, 2, 3))
        assert counted[-1] == 9
