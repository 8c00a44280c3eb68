"""One step of a plain recurrent layer (Elman, "Finding structure in time", Cognitive Science 14, 1990)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from quant_core.proxies import QuantProxy
from quant_rnn.native.acceptance import takes
from quant_rnn.native.rnn import rnn as native_rnn
from quant_rnn.quantizing import value
from quant_rnn.sequence import State
from quant_rnn.steady import steady
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

    def run_natively(
        self, projected: Tensor, state: tuple[Tensor, ...], weights: Weights, io_quant: QuantProxy | None, reverse: bool
    ) -> tuple[Tensor, ...] | None:
        """All steps in one operation, ``(outputs, h)``; ``None`` where there is none for these quantizers or tensors."""
        if self.gate_acc_quant is None or not self.gate_acc_quant.is_quant_enabled:
            return None
        if not takes(projected, weights.hidden, *state):
            return None
        acc, out = steady(self.gate_acc_quant, projected), steady(io_quant, projected)
        if acc is None or out is None:
            return None
        ranges = [acc.low, acc.high, out.low, out.high]
        scales = torch.stack([acc.scale, out.scale])
        outputs, hidden, _ = native_rnn(projected, weights.hidden, *state, scales, ranges, self.nonlinearity, reverse)
        return outputs, hidden

    def collect_natively(self, *inputs: object) -> None:
        """There is no single operation for the steps that collect statistics."""

    def extra_repr(self) -> str:
        """The function."""
        return self.nonlinearity
