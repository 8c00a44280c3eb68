"""One step of a gated recurrent unit (Cho et al., "Learning phrase representations", arXiv:1406.1078, in torch.nn's variant)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quant_core.proxies import QuantProxy
from quant_rnn.quantizing import value
from quant_rnn.sequence import State
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

    def run_natively(self, *inputs: object) -> None:
        """There is no single operation for all steps."""

    def collect_natively(self, *inputs: object) -> None:
        """There is no single operation for the steps that collect statistics."""
