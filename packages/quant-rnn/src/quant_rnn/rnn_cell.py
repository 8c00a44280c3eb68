"""One step of a plain recurrent layer (Elman, "Finding structure in time", Cognitive Science 14, 1990)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from quant_core.proxies import QuantProxy
from quant_rnn.quantizing import value
from quant_rnn.sequence import State
from quant_rnn.weights import Weights

Nonlinearity = Literal["tanh", "relu"]
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "relu": torch.relu}


class RNNCell(nn.Module):
    """``h' = f(Q_acc(x + W_h·h))``, where ``x`` is the projected input with the bias, and ``f`` is tanh or ReLU.

    Attributes:
        gate_acc_quant: quantizes what ``f`` is applied to.
    """

    gate_acc_quant: QuantProxy | None
    states = 1

    def __init__(self, nonlinearity: Nonlinearity) -> None:
        super().__init__()
        self.nonlinearity = nonlinearity

    def forward(self, x: Tensor, state: tuple[Tensor, ...], weights: Weights) -> State:
        """``(B, H)`` and ``(h,)`` to the next ``(h,)``, which is not yet quantized."""
        accumulator = torch.addmm(x, state[0], weights.hidden.t())
        return (FUNCTIONS[self.nonlinearity](value(self.gate_acc_quant, accumulator)),)

    def extra_repr(self) -> str:
        """The function."""
        return self.nonlinearity
