"""Whole networks, through collecting and learning of scales: ours and Brevitas's train alike, and bend alike."""

from collections.abc import Callable
from typing import Any

import brevitas.nn as bnn
import brevitas.quant as bq
import pytest
import torch
from torch import Tensor, nn

import quant_core.quant as q
import quant_nn as qnn

LINEAR = (1, 3)
"""Where the linear layers stand."""


def tensor(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def with_integer_biases(library: Any, presets: Any) -> nn.Module:
    options = {"bias": True, "weight_bit_width": 4, "bias_quant": presets.Int8Bias}
    return nn.Sequential(
        library.QuantIdentity(bit_width=8, return_quant_tensor=True, collect_stats_steps=3),
        library.QuantLinear(16, 12, **options),
        library.QuantReLU(bit_width=4, return_quant_tensor=True, collect_stats_steps=3),
        library.QuantLinear(12, 4, **options),
    )


def in_fixed_point(library: Any, presets: Any) -> nn.Module:
    options = {"weight_quant": presets.Int8WeightPerTensorFixedPoint, "weight_bit_width": 4, "bias": True}
    return nn.Sequential(
        library.QuantIdentity(presets.Int8ActPerTensorFixedPoint, bit_width=8, collect_stats_steps=3),
        library.QuantLinear(16, 12, **options),
        library.QuantReLU(presets.Uint8ActPerTensorFixedPoint, bit_width=4, collect_stats_steps=3),
        library.QuantLinear(12, 4, **options),
    )


def with_zero_points(library: Any, presets: Any) -> nn.Module:
    options = {"weight_quant": presets.ShiftedUint8WeightPerChannelFloat, "weight_bit_width": 4, "bias": True}
    return nn.Sequential(
        library.QuantIdentity(presets.ShiftedUint8ActPerTensorFloat, bit_width=8, collect_stats_steps=3),
        library.QuantLinear(16, 12, **options),
        library.QuantIdentity(presets.ShiftedUint8ActPerTensorFloat, bit_width=4, collect_stats_steps=3),
        library.QuantLinear(12, 4, **options),
    )


@pytest.mark.parametrize("network", [with_integer_biases, in_fixed_point, with_zero_points])
def test_a_short_training_goes_the_same_way(network: Callable[..., nn.Module]) -> None:
    ours, theirs = losses(network(qnn, q)), losses(network(bnn, bq))
    assert ours[0] == theirs[0]
    assert ours == pytest.approx(theirs, rel=5e-3)


@pytest.mark.parametrize("network", [with_integer_biases, in_fixed_point, with_zero_points])
def test_products_with_the_hessian_are_the_same(network: Callable[..., nn.Module]) -> None:
    ours, theirs = hessian_products(network(qnn, q)), hessian_products(network(bnn, bq))
    assert len(ours) == len(theirs) == 2 * len(LINEAR)
    for found, wanted in zip(ours, theirs, strict=True):
        assert float((found - wanted).abs().max()) <= 5e-3 * float(wanted.abs().max())
        assert float(wanted.abs().max()) > 0


def hessian_products(net: nn.Module) -> list[Tensor]:
    """Of the weights and biases, in a network whose scales are learned."""
    start_alike(net)
    for step in range(4):
        net(tensor(100 + step, 32, 16))
    layers: list[Any] = [net.get_submodule(str(index)) for index in LINEAR]
    leaves = [leaf for layer in layers for leaf in (layer.weight, layer.bias)]
    loss = net(tensor(200, 32, 16)).pow(3).mean()
    first = torch.autograd.grad(loss, leaves, create_graph=True)
    along = sum((gradient * tensor(7, *gradient.shape)).sum() for gradient in first)
    return list(torch.autograd.grad(along, leaves))


def losses(net: nn.Module) -> list[float]:
    """Of twelve steps from the same weights."""
    start_alike(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    found = []
    for step in range(12):
        optimizer.zero_grad()
        loss = net(tensor(100 + step, 32, 16)).square().mean()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def start_alike(net: nn.Module) -> None:
    for index in LINEAR:
        layer: Any = net.get_submodule(str(index))
        with torch.no_grad():
            for parameter in (layer.weight, layer.bias):
                parameter.copy_(tensor(index, *parameter.shape) * 0.3)
        layer.weight_quant.init_tensor_quant()
