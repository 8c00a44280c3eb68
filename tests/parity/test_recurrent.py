"""QuantRNN and QuantLSTM against Brevitas: values to the bit, gradients, and statistics.

Weights and scales are drawn such that every accumulator is a whole number of steps of a power of two. The order in which a matrix
product adds up makes no difference then, and nothing hides a rounding that differs.
"""

from __future__ import annotations

from typing import Any

import brevitas.nn as theirs
import pytest
import torch
from brevitas import config
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import quant_rnn as ours

KINDS: dict[str, tuple[Any, Any, tuple[str, ...], tuple[str, ...]]] = {
    "RNN": (ours.QuantRNN, theirs.QuantRNN, ("",), ("gate_acc_quant",)),
    "LSTM": (
        ours.QuantLSTM,
        theirs.QuantLSTM,
        ("input_", "forget_", "cell_", "output_"),
        (
            "input_acc_quant",
            "forget_acc_quant",
            "cell_acc_quant",
            "output_acc_quant",
            "input_sigmoid_quant",
            "forget_sigmoid_quant",
            "cell_tanh_quant",
            "output_sigmoid_quant",
            "hidden_state_tanh_quant",
            "cell_state_quant",
        ),
    ),
}
STEP = 2.0**-7


@st.composite
def cases(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    kind = draw(st.sampled_from(sorted(KINDS)))
    options: dict[str, Any] = {
        "input_size": draw(st.integers(1, 6)),
        "hidden_size": draw(st.integers(1, 6)),
        "num_layers": draw(st.integers(1, 2)),
        "bidirectional": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "bias": draw(st.booleans()),
        "weight_bit_width": draw(st.integers(3, 8)),
        "io_bit_width": draw(st.integers(3, 8)),
        "gate_acc_bit_width": 8,
    }
    if kind == "RNN":
        options["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
    else:
        for name in ("gate_acc", "sigmoid", "tanh", "cell_state"):
            options[f"{name}_bit_width"] = draw(st.integers(3, 8))
        options["shared_intra_layer_weight_quant"] = draw(st.booleans())
        options["shared_intra_layer_gate_acc_quant"] = draw(st.booleans())
        shared = draw(st.booleans())
        options["shared_cell_state_quant"] = options["cat_output_cell_states"] = shared
    return kind, options


def on_steps(shape: torch.Size, most: int) -> Tensor:
    """Whole multiples of the step, the largest of which occurs once."""
    integers = torch.randint(-most + 1, most, shape).float()
    integers.view(-1)[0] = most
    return integers * STEP


def pair(kind: str, options: dict[str, Any], *, collected: bool = True) -> tuple[nn.Module, nn.Module]:
    """Both layers in eval mode, with the same weights and scales."""
    our_type, their_type, gates, quantizers = KINDS[kind]
    config.IGNORE_MISSING_KEYS = True
    mine, other = our_type(**options).eval(), their_type(**options).eval()
    most = 2 ** (options["weight_bit_width"] - 1) - 1
    with torch.no_grad():
        for name, parameter in mine.named_parameters():
            if name.startswith("weight"):
                rows = on_steps(parameter.unflatten(0, (len(gates), -1)).shape, most)
                rows[:, 0, 0] = most * STEP
                parameter.copy_(rows.flatten(0, 1))
            elif name.startswith("bias"):
                parameter.normal_()
        plain = {name: part for name, part in mine.state_dict().items() if name.startswith(("weight_", "bias_"))}
        other.load_state_dict(plain)
        for layer, their_layer in zip(mine.layers, other.layers, strict=True):
            for direction, their_direction in zip(layer, their_layer, strict=True):
                pairs = [(direction.io_quant, their_direction.io_quant)]
                pairs += [(getattr(direction.cell, name), getattr(their_direction.cell, name)) for name in quantizers]
                for proxy, their_proxy in pairs:
                    threshold = 2.0 ** int(torch.randint(-1, 2, ()))
                    proxy.tensor_quant.scaling_impl.value.fill_(threshold)
                    their_scaling = their_proxy.fused_activation_quant_proxy.tensor_quant.scaling_impl
                    their_scaling.value.fill_(threshold)
                    if collected:
                        their_scaling.counter = their_scaling.collect_stats_steps + 1  # the value is read from then on
    return mine, other


def leaves(result: Any) -> list[Tensor]:
    found = []
    for part in torch.utils._pytree.tree_leaves(result):
        found.append(part.value if hasattr(part, "value") else part)
    return found


def scales_of(mine: nn.Module, other: nn.Module, kind: str) -> list[tuple[str, nn.Parameter, nn.Parameter]]:
    found = []
    for number, (layer, their_layer) in enumerate(zip(mine.layers, other.layers, strict=True)):
        for direction, their_direction in zip(layer, their_layer, strict=True):
            both = [("io", direction.io_quant, their_direction.io_quant)]
            both += [
                (name, getattr(direction.cell, name), getattr(their_direction.cell, name)) for name in KINDS[kind][3]
            ]
            for name, proxy, their_proxy in both:
                their_quant = their_proxy.fused_activation_quant_proxy.tensor_quant
                found.append(
                    (f"{number} {name}", proxy.tensor_quant.scaling_impl.value, their_quant.scaling_impl.value)
                )
    return found


def their_weight_gradient(other: nn.Module, layer: int, side: int, gates: tuple[str, ...], name: str) -> Tensor:
    direction = other.layers[layer][side]
    parts = [getattr(direction, f"{gate}gate_params" if gate else "gate_params") for gate in gates]
    if name == "bias":
        return torch.cat([part.bias.grad for part in parts])
    return torch.cat([getattr(part, f"{name}_weight").weight.grad for part in parts])


@settings(max_examples=20, deadline=None)
@given(cases(), st.integers(1, 5), st.integers(1, 3), st.booleans(), st.integers(0, 2**16))
def test_values_and_gradients(
    case: tuple[str, dict[str, Any]], steps: int, batch: int, with_state: bool, seed: int
) -> None:
    kind, options = case
    torch.manual_seed(seed)
    mine, other = pair(kind, options)
    shape = (batch, steps) if options["batch_first"] else (steps, batch)
    x = (torch.randn(*shape, options["input_size"])).requires_grad_()
    their_x = x.detach().clone().requires_grad_()
    state = None
    one = options["num_layers"] == 1 and not options["bidirectional"] and options.get("cat_output_cell_states", True)
    if (
        with_state and one
    ):  # states of several layers raise there, and states that are returned as lists do not come back
        count = options["num_layers"] * (1 + options["bidirectional"])
        state = torch.randn(count, batch, options["hidden_size"])
        state = state if kind == "RNN" else (state, torch.randn(count, batch, options["hidden_size"]))
    results, their_results = leaves(mine(x, state)), leaves(other(their_x, state))
    if not options.get("cat_output_cell_states", True):
        results, their_results = results[:2], their_results[:2]  # the lists of cell states have other shapes
    assert len(results) == len(their_results)
    for value, their_value in zip(results, their_results, strict=True):
        assert torch.equal(value, their_value.reshape(value.shape))
    weights = [torch.randn_like(value) for value in results]
    for parts in (results, their_results):
        sum((part.reshape(weight.shape) * weight).sum() for part, weight in zip(parts, weights, strict=True)).backward()
    close = {"rtol": 1e-3, "atol": 1e-3}
    torch.testing.assert_close(x.grad, their_x.grad, **close)
    gates = KINDS[kind][2]
    for layer in range(options["num_layers"]):
        for side in range(1 + options["bidirectional"]):
            end = f"_l{layer}{'_reverse' if side else ''}"
            for name, their_name in {"weight_ih": "input", "weight_hh": "hidden", "bias_ih": "bias"}.items():
                if options["bias"] or their_name != "bias":
                    found = getattr(mine, f"{name}{end}").grad
                    wanted = their_weight_gradient(other, layer, side, gates, their_name)
                    torch.testing.assert_close(found, wanted, **close, msg=lambda m, at=f"{name}{end}": f"{at}: {m}")
    for name, value, their_value in scales_of(mine, other, kind):
        torch.testing.assert_close(value.grad, their_value.grad, **close, msg=lambda m, at=name: f"{at}: {m}")


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("bidirectional", [False, True])
def test_statistics_of_the_first_step(kind: str, bidirectional: bool) -> None:
    torch.manual_seed(0)
    options = {"input_size": 5, "hidden_size": 4, "bidirectional": bidirectional, "weight_bit_width": 8}
    mine, other = pair(kind, options, collected=False)
    mine.train()
    other.train()
    x = torch.randn(1, 3, 5)
    torch.testing.assert_close(mine(x)[0], leaves(other(x))[0], rtol=1e-5, atol=1e-6)
    mine.eval()
    other.eval()
    for direction, their_direction in zip(mine.layers[0], other.layers[0], strict=True):
        assert_same_scale(direction.io_quant, their_direction.io_quant)
        for name in KINDS[kind][3]:
            assert_same_scale(getattr(direction.cell, name), getattr(their_direction.cell, name))


def assert_same_scale(mine: Any, other: Any) -> None:
    torch.testing.assert_close(mine.scale(), other.scale(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_float_checkpoints_give_the_same_quantized_weights(kind: str) -> None:
    our_type, their_type, gates, _ = KINDS[kind]
    config.IGNORE_MISSING_KEYS = True
    plain = {"RNN": nn.RNN, "LSTM": nn.LSTM}[kind](5, 4)
    for per_channel in (False, True):
        mine, other = (kind_(5, 4, weight_scaling_per_output_channel=per_channel) for kind_ in (our_type, their_type))
        mine.load_state_dict(plain.state_dict())
        other.load_state_dict(plain.state_dict())
        for gate in gates:
            params, their_params = (
                getattr(layer.layers[0][0], f"{gate}gate_params" if gate else "gate_params") for layer in (mine, other)
            )
            for name in ("input_weight", "hidden_weight"):
                weight, their_weight = getattr(params, name).quant_weight(), getattr(their_params, name).quant_weight()
                assert torch.equal(weight.value, their_weight.value)
                assert torch.equal(weight.scale, their_weight.scale)
