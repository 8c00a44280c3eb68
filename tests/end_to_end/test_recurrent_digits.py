"""Real data: handwritten digits read row by row, learned as well with quantized weights and states as without; and
rounded after training.
"""

from __future__ import annotations

import functools
from typing import Any, Final

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import quant_nn as qnn
from quant_nn.correction import correct_bias
from quant_rnn import QuantLSTM

SEEDS: Final = range(5)
EPOCHS: Final = 7
HELD_BACK: Final = 400
WITHIN: Final = 2.0
KINDS: Final = ("io", "gate_acc", "sigmoid", "tanh", "cell_state")
LAYERS: Final[dict[str, Any]] = {
    "float": lambda: nn.LSTM(8, 32),
    "W8A8": lambda: QuantLSTM(8, 32, weight_bit_width=8, **{f"{kind}_bit_width": 8 for kind in KINDS}),
    "W4A6": lambda: QuantLSTM(8, 32, weight_bit_width=4, **{f"{kind}_bit_width": 6 for kind in KINDS}),
}


class Reader(nn.Module):
    """Reads the rows of an image from top to bottom, and names the digit from what it remembers."""

    def __init__(self, lstm: nn.Module) -> None:
        super().__init__()
        self.lstm = lstm
        self.head = nn.Linear(32, 10)

    def forward(self, images: Tensor) -> Tensor:
        named: Tensor = self.head(self.lstm(images.transpose(0, 1))[1][0][-1])
        return named


@functools.cache
def digits() -> tuple[Tensor, Tensor]:
    """Images of numbers from −1 to 1, and labels, in an order without order."""
    data = load_digits()
    shuffled = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    return (torch.tensor(data.images, dtype=torch.float32) / 8 - 1)[shuffled], torch.tensor(data.target)[shuffled]


@functools.cache
def trained(layer: str, seed: int) -> nn.Module:
    """Trained on all images but 400."""
    images, labels = digits()
    torch.manual_seed(seed)
    net = Reader(LAYERS[layer]())
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images) - HELD_BACK).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images[batch]), labels[batch]).backward()
            optimizer.step()
        schedule.step()
    return net.eval()


@torch.no_grad()
def accuracy(net: nn.Module) -> float:
    """Percent of the 400 images."""
    images, labels = digits()
    return 100 * float((net(images[-HELD_BACK:]).argmax(1) == labels[-HELD_BACK:]).float().mean())


@pytest.mark.parametrize("seed", SEEDS)
def test_quantized_readers_are_as_good_as_float_ones(seed: int) -> None:
    plain = accuracy(trained("float", seed))
    assert plain > 92
    for layer in ("W8A8", "W4A6"):
        assert accuracy(trained(layer, seed)) >= plain - WITHIN


@torch.no_grad()
def error(net: nn.Module, exact: Tensor) -> float:
    return float((net(digits()[0][-HELD_BACK:]) - exact).square().mean())


@pytest.mark.parametrize("seed", SEEDS)
def test_correcting_the_biases_of_gates_lowers_the_error_of_four_bits(seed: int) -> None:
    floats = trained("float", seed)
    net = Reader(QuantLSTM(8, 32, weight_bit_width=4))
    net.load_state_dict(floats.state_dict())
    data = digits()[0][:HELD_BACK].split(100)
    qnn.calibrate(net, data)
    exact = floats(digits()[0][-HELD_BACK:]).detach()
    before = error(net.eval(), exact)
    assert list(correct_bias(net, data).shifts) == ["lstm.bias_ih_l0"]
    assert error(net, exact) < before
