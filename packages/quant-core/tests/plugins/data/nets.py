"""Models for test_quant_export.py."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        print("a model that talks")
        self.hidden = nn.Linear(4, 3)
        self.out = nn.Linear(3, 2)

    def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        y = self.out(torch.relu(self.hidden(x)))
        return y if shift is None else y + shift


def linear() -> nn.Module:
    return nn.Linear(4, 2)


class OtherInTraining(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x) if self.training else torch.tanh(x)


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x
