"""One step of a long short-term memory (Hochreiter and Schmidhuber, Neural Computation 9, 1997; with forget gates: Gers et
al., Neural Computation 12, 2000; coupled: Greff et al., "LSTM: a search space odyssey", arXiv:1503.04069).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quant_core.proxies import QuantProxy
from quant_nn.layer import value_of
from quant_rnn.gates import COUPLED_LSTM, LSTM
from quant_rnn.native.acceptance import takes
from quant_rnn.native.lstm import lstm as native_lstm
from quant_rnn.quantizing import quantized, value
from quant_rnn.sequence import State
from quant_rnn.steady import steady
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
    states = 2

    def __init__(self, coupled: bool) -> None:
        super().__init__()
        self.coupled = coupled
        self.gates = COUPLED_LSTM if coupled else LSTM

    def forward(self, x: Tensor, state: tuple[Tensor, ...], weights: Weights) -> State:
        """``(B, G·H)`` and ``(h, c)`` to the next ``(h, c)``; ``h`` is not yet quantized."""
        hidden, cell_state = state
        accumulators = torch.addmm(x, hidden, weights.hidden.t()).chunk(len(self.gates), dim=1)
        named = dict(zip(self.gates, accumulators, strict=True))
        i = value(self.input_sigmoid_quant, torch.sigmoid(value(self.input_acc_quant, named["input"])))
        if self.coupled:
            f = value(self.input_sigmoid_quant, 1 - i)
        else:
            f = value(self.forget_sigmoid_quant, torch.sigmoid(value(self.forget_acc_quant, named["forget"])))
        g = value(self.cell_tanh_quant, torch.tanh(value(self.cell_acc_quant, named["cell"])))
        o = value(self.output_sigmoid_quant, torch.sigmoid(value(self.output_acc_quant, named["output"])))
        kept = value(self.cell_state_quant, f * cell_state)
        added = value(self.cell_state_quant, i * g)
        after = quantized(self.cell_state_quant, kept + added)
        out = o * value(self.hidden_state_tanh_quant, torch.tanh(value_of(after)))
        return (out if weights.projection is None else F.linear(out, weights.projection)), after

    def run_natively(
        self, projected: Tensor, state: tuple[Tensor, ...], weights: Weights, io_quant: QuantProxy | None, reverse: bool
    ) -> tuple[Tensor, ...] | None:
        """All steps in one operation, ``(outputs, h, c)``; ``None`` where there is none for these quantizers or tensors."""
        if weights.projection is not None or not takes(projected, weights.hidden, *state):
            return None
        forget = "input" if self.coupled else "forget"
        kinds = {"input": "sigmoid", "forget": "sigmoid", "cell": "tanh", "output": "sigmoid"}
        order = [getattr(self, f"{forget if gate == 'forget' else gate}_acc_quant") for gate in LSTM]
        if any(quantizer is None or not quantizer.is_quant_enabled for quantizer in (*order, self.cell_state_quant)):
            return None
        order += [getattr(self, f"{forget if gate == 'forget' else gate}_{kinds[gate]}_quant") for gate in LSTM]
        order += [self.cell_state_quant, self.hidden_state_tanh_quant, io_quant]
        grids = [steady(quantizer, projected) for quantizer in order]
        found = [grid for grid in grids if grid is not None]
        if len(found) < len(grids) or len({grid.high - grid.low for grid in found[:4]}) > 1:
            return None
        ranges = [bound for grid in found for bound in (grid.low, grid.high)]
        scales = torch.stack([grid.scale for grid in found])
        out, hidden, cell, _, _ = native_lstm(projected, weights.hidden, *state, scales, ranges, self.coupled, reverse)
        return out, hidden, cell

    def extra_repr(self) -> str:
        """Whether the gates are coupled."""
        return "coupled" if self.coupled else ""
