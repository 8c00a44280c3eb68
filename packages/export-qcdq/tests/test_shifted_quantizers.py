"""Quantizers with zero-points of their own, from statistics and learned: the file has the grids of the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.errors import SpecError
from quant_core.quant import (
    ShiftedUint8ActPerTensorFloat,
    ShiftedUint8WeightPerChannelFloat,
    ShiftedUint8WeightPerTensorFloat,
    ShiftedUint8WeightPerTensorFloatHQO,
)

ACTS = ("entry", "act1", "act2")


class Shifted(nn.Module):
    """Two convolutions and a linear layer whose weights and inputs have zero-points."""

    def __init__(self) -> None:
        super().__init__()
        act: dict[str, Any] = {"act_quant": ShiftedUint8ActPerTensorFloat}
        self.entry = qnn.QuantIdentity(**act)
        self.conv1 = qnn.QuantConv2d(2, 4, 3, padding=1, weight_quant=ShiftedUint8WeightPerChannelFloat)
        self.act1 = qnn.QuantIdentity(bit_width=5, **act)
        self.conv2 = qnn.QuantConv2d(4, 3, 3, weight_quant=ShiftedUint8WeightPerTensorFloat, weight_bit_width=6)
        self.act2 = qnn.QuantIdentity(**act)
        self.fc = qnn.QuantLinear(3 * 6 * 6, 5, weight_quant=ShiftedUint8WeightPerChannelFloat, weight_signed=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(nn.functional.elu(self.conv1(self.entry(x))))
        return self.fc(torch.flatten(self.act2(self.conv2(x)), 1))


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(5, 2, 8, 8, generator=torch.Generator().manual_seed(1)) - 0.7


@pytest.fixture(scope="module")
def shifted(write: Callable[..., Any], images: Tensor) -> Any:
    torch.manual_seed(0)
    net = Shifted()
    with torch.no_grad():
        for weight in (net.conv1.weight, net.conv2.weight, net.fc.weight):
            weight.add_(0.05)
    for step in range(3):
        net(images + 0.1 * step)
    return write(net, images)


def test_the_weights_are_stored_as_the_integers_of_the_model_with_their_zero_points(shifted: Any) -> None:
    for name in ("conv1", "conv2", "fc"):
        weight = getattr(shifted.model, name).quant_weight()
        np.testing.assert_array_equal(shifted.initializers[f"{name}.weight"], weight.int().numpy())
        stored = shifted.initializers[f"{name}.weight_zero_point"]
        np.testing.assert_array_equal(stored.flatten(), weight.zero_point.flatten().detach().numpy())
        assert stored.shape == (() if name == "conv2" else (len(weight.value),))


def test_the_activations_have_the_zero_points_of_the_model(shifted: Any) -> None:
    found = [shifted.operand(node, 2).item() for node in shifted.nodes("QuantizeLinear")]
    wanted = [getattr(shifted.model, name).act_quant.zero_point().item() for name in ACTS]
    assert found == wanted
    assert all(point > 0 for point in found)


def test_the_integers_between_the_layers_are_those_of_the_model(shifted: Any, images: Tensor) -> None:
    """ONNX adds the zero-point after rounding, so that a value halfway between two levels may go to either of them."""
    results = {}
    hooks = [
        getattr(shifted.model, name).act_quant.register_forward_hook(
            lambda _module, _args, out, name=name: results.__setitem__(name, out.int().numpy())
        )
        for name in ACTS
    ]
    shifted.model(images)
    for hook in hooks:
        hook.remove()
    values = shifted.values(images)
    stored = [values[node.input[0]] for node in shifted.nodes("DequantizeLinear") if node.input[0] in values]
    for name, integers in zip(ACTS, stored, strict=True):
        assert integers.dtype == np.uint8
        apart = np.abs(integers.astype(int) - results[name])
        assert apart.max() <= 1, name
        assert apart.mean() < 0.01, name


@pytest.mark.parametrize("optimized", [False, True])
def test_onnxruntime_computes_what_the_model_does(shifted: Any, images: Tensor, optimized: bool) -> None:
    (found,) = shifted.outputs(images, optimized=optimized)
    wanted = shifted.model(images).detach().numpy()
    with torch.no_grad():
        largest = float(shifted.model.fc.quant_weight().value.abs().max())
        step = float(shifted.model.act2.act_quant.scale()) * largest
    # Of the 108 values that go into an output, as many as three may have gone to the level beside.
    np.testing.assert_allclose(found, wanted, atol=3 * step, rtol=0)
    assert (np.abs(found - wanted) < 1e-5).any(axis=1).sum() >= 1  # where nothing lay halfway between two levels


def test_zero_stays_zero(shifted: Any) -> None:
    values = shifted.values(torch.zeros(5, 2, 8, 8))
    (entry, *_) = shifted.nodes("QuantizeLinear")
    (output,) = [node.output[0] for node in shifted.nodes("DequantizeLinear") if node.input[0] == entry.output[0]]
    assert not values[output].any()


def test_a_zero_point_that_is_no_integer_is_refused(write: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    layer = qnn.QuantLinear(7, 3, weight_quant=ShiftedUint8WeightPerTensorFloatHQO)
    point = layer.weight_quant.zero_point().item()
    with pytest.raises(SpecError) as caught:
        write(layer, torch.zeros(2, 7))
    assert caught.value.where == "weight_quant (quant_nn.QuantLinear)"
    assert caught.value.why == (
        f"after folding: a zero-point is an integer from 0 to 255, got values from {point:g} to {point:g}"
    )
