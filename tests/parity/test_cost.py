"""Losses on learned bits: values and gradients of Brevitas."""

from __future__ import annotations

from typing import Any

import brevitas.loss as oracle
import brevitas.nn as bnn
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import quant_nn as qnn
from quant_nn.cost import (
    ActivationBitWidthWeightedBySize,
    QuantLayerOutputBitWidthWeightedByOps,
    WeightBitWidthWeightedBySize,
)

BITS = st.integers(2, 8)


def network(library: Any, bits: tuple[int, int, int, int], groups: int) -> nn.Sequential:
    entry, first, hidden, last = bits
    learned = {"weight_bit_width_impl_type": "parameter", "return_quant_tensor": True, "bias": False}
    act = {"bit_width_impl_type": "parameter", "return_quant_tensor": True}
    return nn.Sequential(
        library.QuantIdentity(bit_width=entry, **act),
        library.QuantConv2d(4, 6, 3, groups=groups, weight_bit_width=first, **learned),
        library.QuantReLU(bit_width=hidden, **act),
        nn.Flatten(),
        library.QuantLinear(6 * 16, 5, weight_bit_width=last, **learned),
    )


def gradients(net: nn.Module, loss: Tensor) -> list[float]:
    """By layer, in order."""
    net.zero_grad()
    loss.backward(retain_graph=True)
    named = [(name, parameter.grad) for name, parameter in net.named_parameters() if "bit_width" in name]
    return [float(grad) for _, grad in sorted(named, key=lambda item: item[0]) if grad is not None]


@settings(max_examples=15, deadline=None)
@given(st.tuples(BITS, BITS, BITS, BITS), st.sampled_from([1, 2]), st.integers(1, 3))
def test_values_and_gradients_are_equal(bits: tuple[int, int, int, int], groups: int, batch: int) -> None:
    ours, theirs = network(qnn, bits, groups), network(bnn, bits, groups)
    x = torch.randn(batch, 4, 6, 6)
    pairs = [
        (WeightBitWidthWeightedBySize(ours), oracle.WeightBitWidthWeightedBySize(theirs)),
        (ActivationBitWidthWeightedBySize(ours, x), oracle.ActivationBitWidthWeightedBySize(theirs)),
        (QuantLayerOutputBitWidthWeightedByOps(ours, x), oracle.QuantLayerOutputBitWidthWeightedByOps(theirs)),
    ]
    theirs(x)
    for mine, other in pairs:
        value, expected = mine(), other.retrieve()
        assert value.item() == pytest.approx(expected.item(), rel=1e-6)
        assert gradients(ours, value) == pytest.approx(gradients(theirs, expected), rel=1e-5)
