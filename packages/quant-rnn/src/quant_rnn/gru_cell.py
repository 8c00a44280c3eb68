"""One step of a gated recurrent unit (Cho et al., "Learning phrase representations", arXiv:1406.1078, in torch.nn's variant)."""

from __future__ import annotations

from torch import nn

from quant_core.proxies import QuantProxy
from quant_rnn.stages import ON_TENSORS, Number, Stages
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

    def forward(
        self, x: Number, state: tuple[Number, ...], weights: Weights, stages: Stages = ON_TENSORS
    ) -> tuple[Number, ...]:
        """``(B, 3·H)`` and ``(h,)`` to the next ``(h,)``, which is not yet quantized."""
        (hidden,) = state
        size, value = hidden.shape[1], stages.value
        gates = stages.linear(hidden, weights.hidden[: 2 * size], stages.columns(x, 0, 2 * size))
        r, z = stages.split(gates, 2)
        r = value(self.reset_sigmoid_quant, stages.sigmoid(value(self.reset_acc_quant, r)))
        z = value(self.update_sigmoid_quant, stages.sigmoid(value(self.update_acc_quant, z)))
        product = stages.linear(hidden, weights.hidden[2 * size :], weights.hidden_bias)
        product = value(self.new_hidden_acc_quant, product)
        new = stages.columns(x, 2 * size, 3 * size) + r * product
        n = value(self.new_tanh_quant, stages.tanh(value(self.new_acc_quant, new)))
        return ((1 - z) * n + z * hidden,)
