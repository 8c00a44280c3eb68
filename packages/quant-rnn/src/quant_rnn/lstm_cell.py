"""One step of a long short-term memory (Hochreiter and Schmidhuber, Neural Computation 9, 1997; with forget gates: Gers et
al., Neural Computation 12, 2000; coupled: Greff et al., "LSTM: a search space odyssey", arXiv:1503.04069).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quant_core.proxies import QuantProxy
from quant_nn.layer import value_of
from quant_rnn.collecting import Piece, at_scales, collected, distinct, follow
from quant_rnn.gates import COUPLED_LSTM, LSTM
from quant_rnn.native.acceptance import takes
from quant_rnn.native.collecting import lstm_collecting
from quant_rnn.native.lstm import lstm as native_lstm
from quant_rnn.quantizing import on_grid, quantized, value
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
        order = self._quantizers(io_quant)
        if any(
            quantizer is None or not quantizer.is_quant_enabled for quantizer in (*order[:4], self.cell_state_quant)
        ):
            return None
        # The cell state has one grid at three places, and the coupled forget gate is that of the input gate.
        order = [*order[:8], *order[10:]]
        grids = [steady(quantizer, projected) for quantizer in order]
        found = [grid for grid in grids if grid is not None]
        if len(found) < len(grids) or len({grid.high - grid.low for grid in found[:4]}) > 1:
            return None
        ranges = [bound for grid in found for bound in (grid.low, grid.high)]
        scales = torch.stack([grid.scale for grid in found])
        out, hidden, cell, _, _ = native_lstm(projected, weights.hidden, *state, scales, ranges, self.coupled, reverse)
        return out, hidden, cell

    def collect_natively(
        self, projected: Tensor, state: tuple[Tensor, ...], weights: Weights, io_quant: QuantProxy | None, reverse: bool
    ) -> Piece | None:
        """The next steps in one operation while quantizers collect; ``None`` where it is not known for all of them.

        It ends where a quantizer has collected all; there may be no step before that.
        """
        if self.coupled or weights.projection is not None or not takes(projected, weights.hidden, *state):
            return None
        order = self._quantizers(io_quant)
        calls = [collected(quantizer, projected, state[0].numel()) for quantizer in order]
        known = [call for call in calls if call is not None]
        if len(known) < len(calls) or not any(call.left for call in known):
            return None
        collecting = {
            quantizer: places for quantizer, places in distinct(order).items() if known[places[0]].left is not None
        }
        left = min((known[places[0]].left or 0) // len(places) for places in collecting.values())
        if left == 0:
            return Piece(0)
        part = projected[-left:] if reverse else projected[:left]
        fields = [
            number
            for call in known
            for number in (call.low, call.high, call.divisor, call.least, float(call.left is not None))
        ]
        scales = torch.stack([call.scale for call in known])
        out, hidden, cell, used, found, *_ = lstm_collecting(part, weights.hidden, *state, scales, fields, reverse)
        if not bool(found.isfinite().all()):
            return None  # step by step, the quantizer that it is raises
        for quantizer, places in collecting.items():
            follow(quantizer, (found.flip(0) if reverse else found)[:, places].flatten())
        last = used[0] if reverse else used[-1]
        io_scales, cell_scale = used[:, 12].view(-1, 1, 1), last[10]
        return Piece(
            len(part),
            at_scales(io_quant, out, io_scales) if io_quant in collecting else on_grid(io_quant, out),
            (
                at_scales(io_quant, hidden, last[12]) if io_quant in collecting else on_grid(io_quant, hidden),
                at_scales(self.cell_state_quant, cell, cell_scale)
                if self.cell_state_quant in collecting
                else on_grid(self.cell_state_quant, cell),
            ),
        )

    def _quantizers(self, io_quant: QuantProxy | None) -> list[QuantProxy | None]:
        """In the order in which a step calls each of them: in front of the gates and behind them, products, sum, tanh, output."""
        forget = "input" if self.coupled else "forget"
        kinds = {"input": "sigmoid", "forget": "sigmoid", "cell": "tanh", "output": "sigmoid"}
        gates = [forget if gate == "forget" else gate for gate in LSTM]
        return [
            *(getattr(self, f"{gate}_acc_quant") for gate in gates),
            *(getattr(self, f"{gate}_{kinds[gate]}_quant") for gate in gates),
            *[self.cell_state_quant] * 3,
            self.hidden_state_tanh_quant,
            io_quant,
        ]

    def extra_repr(self) -> str:
        """Whether the gates are coupled."""
        return "coupled" if self.coupled else ""
