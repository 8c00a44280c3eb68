"""Real data: what calibration, bias correction, equalization and fine-tuning do for networks that read digits."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.quant import Int8ActPerTensorFloat
from quant_nn.calibration import METHODS
from quant_nn.correction import correct_bias, equalize
from quant_nn.sensitivity import sensitivity

SEEDS = range(5)
HELD_BACK = 400


@functools.cache
def digits() -> tuple[Tensor, Tensor]:
    """Images of 64 numbers from 0 to 1, and labels."""
    data = load_digits()
    return torch.tensor(data.data, dtype=torch.float32) / 16, torch.tensor(data.target)


def network(bits: int | None = None) -> nn.Sequential:
    """64 → 48 → 32 → 10, in float or with weights of some bits and activations of 8."""
    if bits is None:
        layers: list[nn.Module] = [nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 10)]
        return nn.Sequential(*layers)
    options = {"weight_bit_width": bits}
    return nn.Sequential(
        qnn.QuantLinear(64, 48, input_quant=Int8ActPerTensorFloat, **options),
        qnn.QuantReLU(return_quant_tensor=True),
        qnn.QuantLinear(48, 32, **options),
        qnn.QuantReLU(return_quant_tensor=True),
        qnn.QuantLinear(32, 10, **options),
    )


@functools.cache
def trained(seed: int) -> Mapping[str, Tensor]:
    """The weights of a float network."""
    torch.manual_seed(seed)
    images, labels = (part[:-HELD_BACK] for part in digits())
    net = network()
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    for _ in range(12):
        for picked in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(net(images[picked]), labels[picked]).backward()
            optimizer.step()
    return net.state_dict()


def rounded(seed: int, bits: int = 4, method: str = "mse") -> nn.Sequential:
    """The network of that seed, quantized and calibrated."""
    net = network(bits)
    net.load_state_dict(trained(seed))
    qnn.calibrate(net, digits()[0][:-HELD_BACK].split(200), method)
    return net.eval()


def error(net: nn.Module, seed: int) -> float:
    """How far its scores are from those of the float network, on digits that nothing has seen."""
    floats = network()
    floats.load_state_dict(trained(seed))
    images = digits()[0][-HELD_BACK:]
    with torch.no_grad():
        return float((net.eval()(images) - floats(images)).square().mean())


def accuracy(net: nn.Module) -> float:
    images, labels = (part[-HELD_BACK:] for part in digits())
    with torch.no_grad():
        return 100 * float((net.eval()(images).argmax(1) == labels).float().mean())


@pytest.mark.parametrize("seed", SEEDS)
def test_bias_correction_and_equalization_lower_the_error_of_four_bits(seed: int) -> None:
    data = digits()[0][:-HELD_BACK].split(200)
    plain = rounded(seed)
    corrected, equalized = copy.deepcopy(plain), copy.deepcopy(plain)
    correct_bias(corrected, data)
    equalize(equalized, data)
    assert error(corrected, seed) < error(plain, seed)
    assert error(equalized, seed) < error(plain, seed)
    correct_bias(equalized, data)
    assert error(equalized, seed) < error(plain, seed)


@pytest.mark.parametrize("method", METHODS)
def test_eight_bits_are_as_good_as_floats_with_every_method(method: str) -> None:
    floats = network()
    floats.load_state_dict(trained(0))
    assert accuracy(floats) > 88
    assert accuracy(rounded(0, 8, method)) >= accuracy(floats) - 1


def test_the_layer_with_two_bits_is_the_most_sensitive(tmp_path: Path) -> None:
    net = rounded(0, 8)
    coarse = network(8)
    coarse[2] = qnn.QuantLinear(48, 32, weight_bit_width=2)
    coarse.load_state_dict(net.state_dict())
    images, labels = (part[:-HELD_BACK] for part in digits())
    batches = list(zip(images.split(300), labels.split(300), strict=True))
    report = sensitivity(coarse, batches, lambda scores, batch: F.cross_entropy(scores, batch[1]))
    assert report.layers[0].name == "2"
    assert report.layers[0].loss_change > 10 * abs(report.layers[1].loss_change)
    assert {row.name for row in report.layers} == {"0", "1", "2", "3", "4"}
    figure = report.plot(tmp_path / "plot.svg")
    assert [bar.get_width() for bar in figure.axes[0].patches] == [row.loss_change for row in report.layers[::-1]]
    assert (tmp_path / "plot.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize("name", ["w8a8_integer_cpu", "fixed_point_dpu", "torch_native"])
def test_converted_models_are_calibrated(name: str) -> None:
    net = network()
    net.load_state_dict(trained(0))
    before = accuracy(net)
    qnn.quantize(net, qnn.recipe(name))
    report = qnn.calibrate(net, digits()[0][:-HELD_BACK].split(200))
    assert len(report.quantizers) >= 3
    assert accuracy(net) >= before - 1
