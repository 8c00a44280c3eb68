"""The plain recurrent layer."""

from __future__ import annotations

from typing import Any

import torch

from quant_core.errors import ConfigurationError, did_you_mean
from quant_core.quant import Int8ActPerTensorFloat, Int8WeightPerTensorFloat, Int32Bias
from quant_nn.quantizers import Quantizer
from quant_rnn.building import ActivationQuantizers, build_layers
from quant_rnn.gates import RNN
from quant_rnn.layer import QuantRecurrent
from quant_rnn.rnn_cell import FUNCTIONS, Nonlinearity, RNNCell


class QuantRNN(QuantRecurrent):
    """``nn.RNN`` with quantized weights, biases, inputs, outputs and accumulators.

    ``h_t = Q_io(f(Q_acc(Q_w(W_ih)·Q_io(x_t) + Q_w(W_hh)·h_{t−1} + Q_b(b_ih + b_hh))))`` with tanh or ReLU for ``f``.

    Shapes: input ``(T, B, I)``, or ``(B, T, I)`` with ``batch_first``, or ``(T, I)``, or a ``PackedSequence``; output
    ``(T, B, D·H)`` likewise; hidden state ``(L·D, B, H)`` for ``L`` layers of ``D`` directions. Parameters have the names of
    ``nn.RNN``.

    Gradient: that of each operation, straight through each quantizer; see :func:`quant_core.ops.quantize_int`.

    Args:
        input_size: features of the input, ``I``.
        hidden_size: features of the hidden state, ``H``.
        num_layers: layers on top of each other, ``L``.
        nonlinearity: ``"tanh"`` or ``"relu"``.
        bias: whether there are biases.
        batch_first: whether the first axis of input and output is the batch.
        dropout: share of the outputs of each layer but the last one that are set to zero in training.
        bidirectional: whether the sequence is also read from its end.
        weight_quant: quantizer of the weights. Each layer and direction has its own; the weights from the input and those from
            the hidden state share it.
        bias_quant: quantizer of the sum of both biases, at the scale of the products that it is added to.
        io_quant: quantizer of input, hidden states and output: one for all layers and directions.
        gate_acc_quant: quantizer of what the function is applied to; each layer and direction has its own.
        shared_input_hidden_weights: let the second direction have the input weights of the first one.
        return_quant_tensor: return quantized tensors, with their scale, instead of plain ones.
        device: where the parameters are.
        dtype: their type.
        **options: options of the quantizers with the prefixes ``weight_``, ``bias_``, ``io_`` and ``gate_acc_``.

    Raises:
        ConfigurationError: when options contradict each other.
        UnusedAttributeError: for an option that nothing reads.

    >>> import torch
    >>> rnn = QuantRNN(10, 20, batch_first=True, weight_bit_width=4, io_bit_width=6)
    >>> outputs, hidden = rnn(torch.randn(2, 5, 10))
    >>> outputs.shape, hidden.shape
    (torch.Size([2, 5, 20]), torch.Size([1, 2, 20]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: Nonlinearity = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        weight_quant: Quantizer = Int8WeightPerTensorFloat,
        bias_quant: Quantizer = Int32Bias,
        io_quant: Quantizer = Int8ActPerTensorFloat,
        gate_acc_quant: Quantizer = Int8ActPerTensorFloat,
        shared_input_hidden_weights: bool = False,
        return_quant_tensor: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if nonlinearity not in FUNCTIONS:
            raise ConfigurationError(
                f"nonlinearity={nonlinearity!r} is not known",
                where=type(self).__name__,
                why="the function of a plain recurrent layer is tanh or relu",
                fix=did_you_mean(str(nonlinearity), FUNCTIONS),
            )
        self._check_returned(return_quant_tensor, io_quant)
        self._init_sizes(
            gates=len(RNN),
            input_size=input_size,
            hidden_size=hidden_size,
            num_layers=num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            proj_size=0,
            shared_input_hidden_weights=shared_input_hidden_weights,
            device=device,
            dtype=dtype,
        )
        self.kind = self.nonlinearity = nonlinearity
        self.return_quant_tensor = return_quant_tensor
        quantizers = {"weight_": weight_quant, "bias_": bias_quant, "io_": io_quant, "gate_acc_": gate_acc_quant}
        self.io_quant, self.layers = build_layers(
            self,
            RNN,
            self.sizes,
            quantizers,
            options,
            lambda inside: lambda: _cell(inside, nonlinearity),
        )


def _cell(inside: ActivationQuantizers, nonlinearity: Nonlinearity) -> RNNCell:
    cell = RNNCell(nonlinearity)
    cell.gate_acc_quant = inside.new("gate_acc_")
    return cell
