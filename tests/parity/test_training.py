"""A dozen steps of SGD, through collecting and learning of scales: ours and Brevitas's networks lose alike."""

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


def losses(net: nn.Module) -> list[float]:
    """Of twelve steps from the same weights."""
    for index in LINEAR:
        layer: Any = net.get_submodule(str(index))
        with torch.no_grad():
            for parameter in (layer.weight, layer.bias):
                parameter.copy_(tensor(index, *parameter.shape) * 0.3)
        layer.weight_quant.init_tensor_quant()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    found = []
    for step in range(12):
        optimizer.zero_grad()
        loss = net(tensor(100 + step, 32, 16)).square().mean()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found
