"""Losses on learned bits: their values and gradients follow from sizes, and a budget stops where it is met."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import quant_nn as qnn
from quant_core.errors import ConfigurationError, InputError
from quant_core.quant import Int8AccumulatorAwareWeightQuant, Int8ActPerTensorFloat
from quant_nn.cost import (
    AccumulatorExcess,
    ActivationBitWidthWeightedBySize,
    Budget,
    QuantLayerOutputBitWidthWeightedByOps,
    WeightBitWidthWeightedBySize,
)
from quant_nn.report import summary

BITS = st.integers(2, 8)


def weight(bits: float, *, learned: bool = True) -> dict[str, Any]:
    return {"weight_bit_width": bits, "bias": False} | ({"weight_bit_width_impl_type": "parameter"} if learned else {})


def network(entry: int, first: int, hidden: int, last: int, *, learned: bool = True) -> nn.Sequential:
    """A convolution of 108 weights, a linear layer of 144 · 10, and the activations before them."""
    act = {"bit_width_impl_type": "parameter"}
    return nn.Sequential(
        qnn.QuantIdentity(bit_width=entry, **act),
        qnn.QuantConv2d(3, 4, 3, **weight(first, learned=learned)),
        qnn.QuantReLU(bit_width=hidden, **act),
        nn.Flatten(),
        qnn.QuantLinear(144, 10, **weight(last, learned=learned)),
    )


X = torch.ones(2, 3, 8, 8)


def gradients(net: nn.Module, loss: torch.Tensor) -> dict[str, float]:
    net.zero_grad()
    loss.backward()
    found = {name: parameter.grad for name, parameter in net.named_parameters()}
    return {name.partition(".")[0]: float(grad) for name, grad in found.items() if grad is not None}


@settings(max_examples=25, deadline=None)
@given(BITS, BITS, BITS, BITS)
def test_values_by_hand(entry: int, first: int, hidden: int, last: int) -> None:
    net = network(entry, first, hidden, last)
    assert WeightBitWidthWeightedBySize(net)().item() == pytest.approx((108 * first + 1440 * last) / 1548)
    assert ActivationBitWidthWeightedBySize(net, X)().item() == pytest.approx((192 * entry + 144 * hidden) / 336)
    one = math.ceil(math.log2((2**entry - 1) * (2**first - 1) * 27))
    other = math.ceil(math.log2((2**hidden - 1) * (2**last - 1) * 144))
    ours = QuantLayerOutputBitWidthWeightedByOps(net, X)().item()
    assert ours == pytest.approx((144 * 27 * one + 1440 * other) / (144 * 27 + 1440))


def test_gradients_are_shares() -> None:
    net = network(5, 4, 7, 6)
    assert gradients(net, WeightBitWidthWeightedBySize(net)()) == pytest.approx({"1": 108 / 1548, "4": 1440 / 1548})
    assert gradients(net, ActivationBitWidthWeightedBySize(net, X)()) == pytest.approx({"0": 192 / 336, "2": 144 / 336})
    share, rest = 3888 / 5328, 1440 / 5328
    expected = {"0": share * 32 / 31, "1": share * 16 / 15, "2": rest * 128 / 127, "4": rest * 64 / 63}
    assert gradients(net, QuantLayerOutputBitWidthWeightedByOps(net, X)()) == pytest.approx(expected)


def test_the_batch_does_not_matter() -> None:
    net = network(5, 4, 7, 6)
    for loss in (ActivationBitWidthWeightedBySize, QuantLayerOutputBitWidthWeightedByOps):
        assert loss(net, X)() == loss(net, X[:1])()


def aware(bits: int, **options: Any) -> qnn.QuantLinear:
    torch.manual_seed(0)
    known = options or {"input_quant": Int8ActPerTensorFloat}
    kind = Int8AccumulatorAwareWeightQuant
    return qnn.QuantLinear(64, 4, bias=False, weight_quant=kind, weight_accumulator_bit_width=bits, **known)


STATED = {"weight_input_bit_width": 8, "weight_input_signed": True}


@pytest.mark.parametrize("known", [{}, STATED], ids=["quantized", "stated"])
@pytest.mark.parametrize("bits", [10, 12, 14, 32])
def test_what_lies_beyond_the_bound_of_an_accumulator(bits: int, known: dict[str, Any]) -> None:
    layer = aware(bits, **known)
    bound = layer.weight_quant.scale() * (2 ** (bits - 1) - 1) / 2**7
    expected = (layer.weight.abs().sum(1, keepdim=True) - bound).clamp(min=0).sum().item()
    assert AccumulatorExcess(layer, torch.ones(1, 64))().item() == pytest.approx(expected, rel=1e-3)


def test_a_length_beyond_the_bound_is_brought_back_without_a_change_of_the_weight() -> None:
    layer = aware(12)
    loss, before = AccumulatorExcess(layer, torch.ones(1, 64)), layer.quant_weight(torch.ones(1, 64)).int()
    length = layer.weight_quant.tensor_quant.pre_scaling_impl.value
    optimizer = torch.optim.SGD([length], 0.01)
    start = loss().item()
    for _ in range(5):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert 0 < loss().item() < start
    assert torch.equal(layer.quant_weight(torch.ones(1, 64)).int(), before)


def test_a_model_without_accumulator_aware_weights_has_no_excess() -> None:
    with pytest.raises(ConfigurationError) as caught:
        AccumulatorExcess(qnn.QuantLinear(4, 2), torch.ones(1, 4))
    assert str(caught.value) == (
        "no weight is aware of its accumulator\n"
        "  at QuantLinear\n"
        "  the loss is a sum over such weights\n"
        "  Set weight_quant=Int8AccumulatorAwareWeightQuant on layers whose input is quantized."
    )


def test_only_some_layers_count() -> None:
    net = network(5, 4, 7, 6)
    loss = QuantLayerOutputBitWidthWeightedByOps(net, X, layer_types=(qnn.QuantLinear,))
    assert set(gradients(net, loss())) == {"2", "4"}


def test_constant_bits_are_no_part_of_a_loss() -> None:
    net = nn.Sequential(qnn.QuantLinear(4, 4, **weight(8, learned=False)), qnn.QuantLinear(4, 4, **weight(3)))
    assert WeightBitWidthWeightedBySize(net)() == 3


def test_a_loss_follows_the_bits() -> None:
    net = network(5, 4, 7, 6)
    loss = WeightBitWidthWeightedBySize(net)
    optimizer = torch.optim.SGD(net.parameters(), 1.0)
    before = loss()
    before.backward()
    optimizer.step()
    assert loss() < before


def test_a_shared_weight_counts_once() -> None:
    one = qnn.QuantLinear(4, 4, **weight(3))
    twin = qnn.QuantLinear(4, 4, weight_quant=one.weight_quant, bias=False)
    twin.weight = one.weight
    net = nn.Sequential(one, twin, qnn.QuantLinear(4, 4, **weight(5)))
    assert WeightBitWidthWeightedBySize(net)() == 4


def test_a_quantizer_of_the_layers_own_input() -> None:
    layer = qnn.QuantLinear(16, 4, input_quant=Int8ActPerTensorFloat, input_bit_width=4, **weight(4))
    assert QuantLayerOutputBitWidthWeightedByOps(layer, torch.ones(1, 16))() == math.ceil(math.log2(15 * 15 * 16))


@pytest.mark.parametrize(
    ("loss", "what", "option"),
    [
        (lambda net: WeightBitWidthWeightedBySize(net), "weight", "weight_bit_width_impl_type='parameter'"),
        (
            lambda net: ActivationBitWidthWeightedBySize(net, torch.ones(1, 4)),
            "activation",
            "bit_width_impl_type='parameter'",
        ),
        (lambda net: Budget(net, weight_bits=4), "weight", "weight_bit_width_impl_type='parameter'"),
    ],
)
def test_nothing_is_learned(loss: Any, what: str, option: str) -> None:
    net = nn.Sequential(qnn.QuantReLU(), qnn.QuantLinear(4, 2))
    with pytest.raises(ConfigurationError) as caught:
        loss(net)
    assert str(caught.value) == (
        f"no {what} learns its bits\n  at Sequential\n  a loss on bits that are constant has no gradient\n"
        f"  Set {option} on the layers whose bits shall be learned."
    )


@settings(max_examples=25, deadline=None)
@given(BITS, BITS, st.sampled_from(["weight_bits", "activation_bits", "bytes", "bit_operations"]))
def test_a_budget_is_the_excess_over_its_target(first: int, last: int, name: str) -> None:
    net = network(6, first, 5, last)
    spent = {
        "weight_bits": (108 * first + 1440 * last) / 1548,
        "activation_bits": (192 * 6 + 144 * 5) / 336,
        "bytes": (108 * first + 1440 * last) / 8,
        "bit_operations": 3888.0 * 6 * first + 1440.0 * 5 * last,
    }[name]
    given: dict[str, Any] = {name: spent}
    assert Budget(net, X, **given)().item() == pytest.approx(0, abs=1e-6)
    assert Budget(net, X, **given).met(tolerance=1e-6)
    if first > 2 and last > 2:
        given = {name: spent * 0.9}
        budget = Budget(net, X, strength=3.0, **given)
        assert budget().item() == pytest.approx(3 * (1 / 0.9 - 1), rel=1e-5)
        assert not budget.met()
        assert budget.met(tolerance=0.12)
        assert getattr(budget.present(), name) == pytest.approx(spent)


def test_bit_operations_and_bytes_are_those_of_the_report() -> None:
    net = network(6, 4, 5, 3)
    present = Budget(net, X, bytes=1000, bit_operations=1e6).present()
    report = summary(net, X[:1])
    assert present.bit_operations == report.total("bops")
    assert present.bytes == report.total("quantized_bytes")
    assert present.weight_bits is None


def test_a_layer_that_is_called_twice_spends_twice() -> None:
    layer = qnn.QuantLinear(4, 4, **weight(2))
    net = nn.Sequential(qnn.QuantIdentity(bit_width=8), layer, qnn.QuantReLU(bit_width=3), layer)
    present = Budget(net, torch.randn(2, 4), bit_operations=1e6).present()
    assert present.bit_operations == 16 * 8 * 2 + 16 * 3 * 2 == summary(net, torch.randn(1, 4)).total("bops")


def test_a_budget_that_is_met_asks_for_nothing() -> None:
    net = network(6, 4, 5, 3)
    budget = Budget(net, weight_bits=4)
    assert set(gradients(net, budget()).values()) == {0.0}


def test_gradients_of_a_budget() -> None:
    net = network(6, 8, 5, 8)
    found = gradients(net, Budget(net, weight_bits=4, strength=2.0)())
    assert found == pytest.approx({"1": 2 / 4 * 108 / 1548, "4": 2 / 4 * 1440 / 1548})


def test_an_exact_budget_pulls_up_what_is_below() -> None:
    net = network(6, 3, 5, 3)
    budget = Budget(net, weight_bits=4, strength=2.0, exact=True)
    assert budget().item() == pytest.approx(2 / 4)
    assert not budget.met()
    assert budget.met(tolerance=0.25)
    assert gradients(net, budget()) == pytest.approx({"1": -2 / 4 * 108 / 1548, "4": -2 / 4 * 1440 / 1548})
    above = network(6, 8, 5, 8)
    assert Budget(above, weight_bits=4, exact=True)() == Budget(above, weight_bits=4)()
    assert Budget(net, weight_bits=3, exact=True).met()


def test_an_exact_budget_that_cannot_be_spent() -> None:
    net = nn.Sequential(qnn.QuantLinear(4, 4, **weight(3), weight_max_bit_width=6))
    with pytest.raises(ConfigurationError) as caught:
        Budget(net, weight_bits=7, exact=True)
    assert str(caught.value) == (
        "weight_bits=7 cannot be reached\n  at Sequential\n  with every learned bit width at its largest it is 6\n"
        "  Set weight_bits to 6 or less, let more layers learn their bits, or raise max_bit_width."
    )
    assert Budget(net, weight_bits=7).met()


def test_a_budget_leaves_the_model_alone() -> None:
    net = network(6, 8, 5, 8)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    Budget(net, X, weight_bits=4, bit_operations=1e6)
    assert net.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_a_budget_without_a_target() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Budget(network(6, 4, 5, 3))
    assert str(caught.value) == (
        "the budget has no target\n  at Sequential\n"
        "  it holds at least one of weight_bits, activation_bits, bytes, bit_operations\n"
        "  Write, for example, Budget(model, weight_bits=4)."
    )


def test_a_budget_that_cannot_be_reached() -> None:
    net = nn.Sequential(qnn.QuantLinear(4, 4, **weight(8, learned=False)), qnn.QuantLinear(4, 4, **weight(6)))
    with pytest.raises(ConfigurationError) as caught:
        Budget(net, weight_bits=4.5)
    assert str(caught.value) == (
        "weight_bits=4.5 cannot be reached\n  at Sequential\n  with every learned bit width at its smallest it is 5\n"
        "  Set weight_bits to 5 or more, let more layers learn their bits, or lower min_bit_width."
    )
    assert Budget(net, weight_bits=5).present().weight_bits == 7


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"weight_bits": 0}, "target"),
        ({"weight_bits": "4"}, "target"),
        ({"weight_bits": True}, "target"),
        ({"bytes": math.inf}, "target"),
        ({"bytes": 9, "strength": -1}, "weight of a loss"),
    ],
)
def test_numbers_are_above_zero(options: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigurationError, match=f"is no {what}"):
        Budget(network(6, 4, 5, 3), **options)


def test_an_example_is_needed_where_sizes_depend_on_it() -> None:
    with pytest.raises(InputError) as caught:
        Budget(network(6, 4, 5, 3), activation_bits=4)
    assert str(caught.value) == (
        "the cost of activations and products needs an example input\n  at Sequential\n"
        "  their number depends on its shape, and it is counted for one element of its batch\n"
        "  Pass a batch, such as Budget(model, x, activation_bits=4)."
    )
