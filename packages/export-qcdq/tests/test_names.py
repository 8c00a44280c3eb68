"""Names of constants: each quantizer has its own scale, so that names stay when another layer changes; numbers are literals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.components import ConstScaling


def constants(file: Any, path: str) -> dict[str, list[str]]:
    """The initializers that the nodes below a path read, by node."""
    return {
        node.name: [name for name in node.input if name in file.initializers]
        for node in file.onnx.graph.node
        if node.name.startswith(f"{path}/")
    }


def relus(first_bits: int) -> nn.Module:
    """Two rectifiers with the same scale, the second one of 4 bits."""
    grid = {"scaling_impl": ConstScaling, "scaling_init": 1.5}
    return nn.Sequential(qnn.QuantReLU(bit_width=first_bits, **grid), nn.Tanh(), qnn.QuantReLU(bit_width=4, **grid))


def test_equal_quantizers_have_their_own_scales_and_share_numbers(write: Callable[..., Any]) -> None:
    file = write(relus(4), torch.zeros(2, 3))
    for path in ("0", "2"):
        assert constants(file, path) == {
            f"{path}/Q": [f"{path}.scale"],
            f"{path}/Clip": ["uint8_0", "uint8_15"],
            f"{path}/DQ": [f"{path}.scale"],
        }
    assert len(file.initializers) == 4
    onnx.checker.check_model(file.onnx, full_check=True)


def test_names_stay_when_another_layer_changes(write: Callable[..., Any]) -> None:
    four, eight = (write(relus(bits), torch.zeros(2, 3)) for bits in (4, 8))
    assert constants(four, "0") != constants(eight, "0")
    assert constants(four, "2") == constants(eight, "2")


def test_equal_layers_have_their_own_weights_and_biases(write: Callable[..., Any]) -> None:
    net = nn.Sequential(qnn.QuantLinear(3, 3), nn.Tanh(), qnn.QuantLinear(3, 3))
    net[2].load_state_dict(net[0].state_dict())
    file = write(net, torch.zeros(2, 3))
    parts = ("bias", "weight", "weight_scale")
    assert sorted(file.initializers) == [f"{layer}.{part}" for layer in (0, 2) for part in parts]
    for part in parts:
        np.testing.assert_array_equal(file.initializers[f"0.{part}"], file.initializers[f"2.{part}"])
    x = torch.randn(2, 3)
    torch.testing.assert_close(torch.from_numpy(file.outputs(x)[0]), net(x), rtol=1e-5, atol=1e-6)


class Twice(nn.Module):
    """One rectifier, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = qnn.QuantReLU(bit_width=4, scaling_impl=ConstScaling, scaling_init=1.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(torch.tanh(self.relu(x)))


def test_a_quantizer_called_twice_has_one_set_of_constants(write: Callable[..., Any]) -> None:
    file = write(Twice(), torch.zeros(2, 3))
    assert sorted(file.initializers) == ["relu.scale", "uint8_0", "uint8_15"]
    assert len(file.nodes("QuantizeLinear")) == 2


def test_types_that_readers_infer_are_not_said(write: Callable[..., Any]) -> None:
    file = write(relus(4), torch.zeros(2, 3))
    assert list(file.onnx.graph.value_info) == []
