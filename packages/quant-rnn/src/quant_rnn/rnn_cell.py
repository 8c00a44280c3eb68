"""One step of a plain recurrent layer (Elman, "Finding structure in time", Cognitive Science 14, 1990)."""

from __future__ import annotations

from typing import Literal, get_args

from torch import nn

from quant_core.proxies import QuantProxy
from quant_rnn.stages import ON_TENSORS, Number, Stages
from quant_rnn.weights import Weights

Nonlinearity = Literal["tanh", "relu"]
FUNCTIONS: tuple[str, ...] = get_args(Nonlinearity)


class RNNCell(nn.Module):
    """``h' = f(Q_acc(x + W_h·h))``, where ``x`` is the projected input with the bias, and ``f`` is tanh or ReLU.

    Attributes:
        gate_acc_quant: quantizes what ``f`` is applied to.
    """

    gate_acc_quant: QuantProxy | None

    def __init__(self, nonlinearity: Nonlinearity) -> None:
        super().__init__()
        self.nonlinearity = nonlinearity

    def forward(
        self, x: Number, state: tuple[Number, ...], weights: Weights, stages: Stages = ON_TENSORS
    ) -> tuple[Number, ...]:
        """``(B, H)`` and ``(h,)`` to the next ``(h,)``, which is not yet quantized."""
        accumulator = stages.linear(state[0], weights.hidden, x)
        function = stages.tanh if self.nonlinearity == "tanh" else stages.relu
        return (function(stages.value(self.gate_acc_quant, accumulator)),)

    def extra_repr(self) -> str:
        """The function."""
        return self.nonlinearity
