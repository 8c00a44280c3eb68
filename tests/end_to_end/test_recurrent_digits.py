"""Real data: handwritten digits read row by row, learned as well with quantized weights and states as without."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from quant_rnn import QuantLSTM

EPOCHS = 12
WITHIN = 2.0
KINDS = ("io", "gate_acc", "sigmoid", "tanh", "cell_state")
LAYERS: dict[str, Any] = {
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


def accuracy(layer: str, seed: int) -> float:
    """Percent of 400 images, after training on the others."""
    digits = load_digits()
    shuffled = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    images = (torch.tensor(digits.images, dtype=torch.float32) / 8 - 1)[shuffled]
    labels = torch.tensor(digits.target)[shuffled]
    torch.manual_seed(seed)
    net = Reader(LAYERS[layer]())
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images) - 400).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images[batch]), labels[batch]).backward()
            optimizer.step()
        schedule.step()
    net.eval()
    with torch.no_grad():
        right = (net(images[-400:]).argmax(1) == labels[-400:]).float().mean()
    return 100 * float(right)


@pytest.mark.parametrize("seed", range(2))
def test_quantized_readers_are_as_good_as_float_ones(seed: int) -> None:
    plain = accuracy("float", seed)
    assert plain > 92
    for layer in ("W8A8", "W4A6"):
        assert accuracy(layer, seed) >= plain - WITHIN
