"""One step of a long short-term memory (Hochreiter and Schmidhuber, Neural Computation 9, 1997; with forget gates: Gers et
al., Neural Computation 12, 2000; coupled: Greff et al., "LSTM: a search space odyssey", arXiv:1503.04069).
"""

from __future__ import annotations

from torch import nn

from quant_core.proxies import QuantProxy
from quant_nn.layer import value_of
from quant_rnn.gates import COUPLED_LSTM, LSTM
from quant_rnn.stages import ON_TENSORS, Number, Stages
from quant_rnn.weights import Weights


class LSTMCell(nn.Module):
    """With ``i, f, g, o`` the gates, each quantized before and behind its function:

    ``c' = Q_c(Q_c(f·c) + Q_c(i·g))`` and ``h' = o·Q_t(tanh(c'))``; coupled gates have ``f = Q_s(1 − i)``.

    Attributes:
        input_acc_quant, forget_acc_quant, cell_acc_quant, output_acc_quant: quantize what the functions are applied to.
        input_sigmoid_quant, forget_sigmoid_quant, cell_tanh_quant, output_sigmoid_quant: quantize the gates.
        cell_state_quant: quantizes the two products and their sum.
        hidden_state_tanh_quant: quantizes ``tanh(c')``.
    """

    input_acc_quant: QuantProxy | None
    forget_acc_quant: QuantProxy | None
    cell_acc_quant: QuantProxy | None
    output_acc_quant: QuantProxy | None
    input_sigmoid_quant: QuantProxy | None
    forget_sigmoid_quant: QuantProxy | None
    cell_tanh_quant: QuantProxy | None
    output_sigmoid_quant: QuantProxy | None
    cell_state_quant: QuantProxy | None
    hidden_state_tanh_quant: QuantProxy | None

    def __init__(self, coupled: bool) -> None:
        super().__init__()
        self.coupled = coupled
        self.gates = COUPLED_LSTM if coupled else LSTM

    def forward(
        self, x: Number, state: tuple[Number, ...], weights: Weights, stages: Stages = ON_TENSORS
    ) -> tuple[Number, ...]:
        """``(B, G·H)`` and ``(h, c)`` to the next ``(h, c)``; ``h`` is not yet quantized."""
        hidden, cell_state = state
        accumulators = stages.split(stages.linear(hidden, weights.hidden, x), len(self.gates))
        named = dict(zip(self.gates, accumulators, strict=True))
        value = stages.value
        i = value(self.input_sigmoid_quant, stages.sigmoid(value(self.input_acc_quant, named["input"])))
        if self.coupled:
            f = value(self.input_sigmoid_quant, 1 - i)
        else:
            f = value(self.forget_sigmoid_quant, stages.sigmoid(value(self.forget_acc_quant, named["forget"])))
        g = value(self.cell_tanh_quant, stages.tanh(value(self.cell_acc_quant, named["cell"])))
        o = value(self.output_sigmoid_quant, stages.sigmoid(value(self.output_acc_quant, named["output"])))
        kept = value(self.cell_state_quant, f * cell_state)
        added = value(self.cell_state_quant, i * g)
        after = stages.quantized(self.cell_state_quant, kept + added)
        out = o * value(self.hidden_state_tanh_quant, stages.tanh(value_of(after)))
        return (out if weights.projection is None else stages.linear(out, weights.projection)), after

    def extra_repr(self) -> str:
        """Whether the gates are coupled."""
        return "coupled" if self.coupled else ""
