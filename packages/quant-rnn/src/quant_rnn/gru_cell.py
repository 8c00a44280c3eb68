"""One step of a gated recurrent unit (Cho et al., "Learning phrase representations", arXiv:1406.1078, in torch.nn's variant)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quant_core.proxies import QuantProxy
from quant_rnn.native.acceptance import takes
from quant_rnn.native.gru import gru as native_gru
from quant_rnn.quantizing import value
from quant_rnn.sequence import State
from quant_rnn.steady import steady
from quant_rnn.weights import Weights


class GRUCell(nn.Module):
    """``n = Q_t(tanh(Q_acc(x_n + r·Q_acc(W_n·h + b_n))))`` and ``h' = (1 − z)·n + z·h``.

    ``r`` and ``z`` are sigmoids, quantized before and behind the function.

    Attributes:
        reset_acc_quant, update_acc_quant, new_acc_quant: quantize what the functions are applied to.
        new_hidden_acc_quant: quantizes what the reset gate is multiplied with.
        reset_sigmoid_quant, update_sigmoid_quant, new_tanh_quant: quantize the gates.
    """

    reset_acc_quant: QuantProxy | None
    update_acc_quant: QuantProxy | None
    new_acc_quant: QuantProxy | None
    new_hidden_acc_quant: QuantProxy | None
    reset_sigmoid_quant: QuantProxy | None
    update_sigmoid_quant: QuantProxy | None
    new_tanh_quant: QuantProxy | None
    states = 1

    def forward(self, x: Tensor, state: tuple[Tensor, ...], weights: Weights) -> State:
        """``(B, 3·H)`` and ``(h,)`` to the next ``(h,)``, which is not yet quantized."""
        (hidden,) = state
        size = hidden.shape[1]
        gates = torch.addmm(x[:, : 2 * size], hidden, weights.hidden[: 2 * size].t())
        r, z = gates.chunk(2, dim=1)
        r = value(self.reset_sigmoid_quant, torch.sigmoid(value(self.reset_acc_quant, r)))
        z = value(self.update_sigmoid_quant, torch.sigmoid(value(self.update_acc_quant, z)))
        product = torch.nn.functional.linear(hidden, weights.hidden[2 * size :], weights.hidden_bias)
        product = value(self.new_hidden_acc_quant, product)
        n = value(self.new_tanh_quant, torch.tanh(value(self.new_acc_quant, x[:, 2 * size :] + r * product)))
        return ((1 - z) * n + z * hidden,)

    def run_natively(
        self, projected: Tensor, state: tuple[Tensor, ...], weights: Weights, io_quant: QuantProxy | None, reverse: bool
    ) -> tuple[Tensor, ...] | None:
        """All steps in one operation, ``(outputs, h)``; ``None`` where there is none for these quantizers or tensors."""
        if not takes(projected, weights.hidden, *state):
            return None
        accs = [self.reset_acc_quant, self.update_acc_quant, self.new_acc_quant]
        if any(quantizer is None or not quantizer.is_quant_enabled for quantizer in accs):
            return None
        behind = [self.reset_sigmoid_quant, self.update_sigmoid_quant, self.new_tanh_quant]
        grids = [steady(quantizer, projected) for quantizer in (*accs, self.new_hidden_acc_quant, *behind, io_quant)]
        found = [grid for grid in grids if grid is not None]
        if len(found) < len(grids) or len({grid.high - grid.low for grid in found[:3]}) > 1:
            return None
        ranges = [bound for grid in found for bound in (grid.low, grid.high)]
        scales = torch.stack([grid.scale for grid in found])
        bias = projected.new_zeros(state[0].shape[1]) if weights.hidden_bias is None else weights.hidden_bias
        out, hidden, *_ = native_gru(projected, weights.hidden, bias, *state, scales, ranges, reverse)
        return out, hidden

    def collect_natively(self, *inputs: object) -> None:
        """There is no single operation for the steps that collect statistics."""
