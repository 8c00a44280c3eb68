"""The gated recurrent unit."""

from __future__ import annotations

from typing import Any

import torch

from quant_core.quant import Int8ActPerTensorFloat, Int8WeightPerTensorFloat, Int32Bias, Uint8ActPerTensorFloat
from quant_nn.quantizers import Quantizer
from quant_rnn.building import ActivationQuantizers, build_layers
from quant_rnn.gates import GRU
from quant_rnn.gru_cell import GRUCell
from quant_rnn.layer import QuantRecurrent


class QuantGRU(QuantRecurrent):
    """``nn.GRU`` with quantized weights, biases, inputs, outputs, accumulators and gates.

    ``r = Q_s(sigmoid(Q_acc(W_ir·x + W_hr·h + b_r)))``, ``z`` likewise,
    ``n = Q_t(tanh(Q_acc(W_in·x + b_in + r·Q_acc(W_hn·h + b_hn))))``, and ``h' = Q_io((1 − z)·n + z·h)``, with quantized ``W``,
    ``b`` and ``x`` as in :class:`~quant_rnn.QuantRNN`, which also says what the shapes are.

    Args:
        input_size: features of the input, ``I``.
        hidden_size: features of the hidden state, ``H``.
        num_layers: layers on top of each other, ``L``.
        bias: whether there are biases.
        batch_first: whether the first axis of input and output is the batch.
        dropout: share of the outputs of each layer but the last one that are set to zero in training.
        bidirectional: whether the sequence is also read from its end.
        weight_quant: quantizer of the weights; each gate of each layer and direction has its own.
        bias_quant: quantizer of the biases.
        io_quant: quantizer of input, hidden states and output: one for all layers and directions.
        gate_acc_quant: quantizer of what sigmoid and tanh are applied to, and of what the reset gate is multiplied with.
        sigmoid_quant: quantizer of the reset and the update gate.
        tanh_quant: quantizer of the new gate.
        shared_input_hidden_weights: let the second direction have the input weights of the first one.
        shared_intra_layer_weight_quant: one weight quantizer for all gates of a layer and direction.
        shared_intra_layer_gate_acc_quant: one quantizer of accumulators for all gates of a layer and direction.
        return_quant_tensor: return quantized tensors, with their scale, instead of plain ones.
        device: where the parameters are.
        dtype: their type.
        **options: options of the quantizers with the prefixes ``weight_``, ``bias_``, ``io_``, ``gate_acc_``, ``sigmoid_`` and
            ``tanh_``.

    Raises:
        ConfigurationError: when options contradict each other.
        UnusedAttributeError: for an option that nothing reads.

    >>> import torch
    >>> outputs, hidden = QuantGRU(10, 20, bidirectional=True)(torch.randn(5, 2, 10))
    >>> outputs.shape, hidden.shape
    (torch.Size([5, 2, 40]), torch.Size([2, 2, 20]))
    """

    kind = "GRU"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        weight_quant: Quantizer = Int8WeightPerTensorFloat,
        bias_quant: Quantizer = Int32Bias,
        io_quant: Quantizer = Int8ActPerTensorFloat,
        gate_acc_quant: Quantizer = Int8ActPerTensorFloat,
        sigmoid_quant: Quantizer = Uint8ActPerTensorFloat,
        tanh_quant: Quantizer = Int8ActPerTensorFloat,
        shared_input_hidden_weights: bool = False,
        shared_intra_layer_weight_quant: bool = False,
        shared_intra_layer_gate_acc_quant: bool = False,
        return_quant_tensor: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self._check_returned(return_quant_tensor, io_quant)
        self._init_sizes(
            gates=len(GRU),
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
        self.return_quant_tensor = return_quant_tensor
        quantizers = {
            "weight_": weight_quant,
            "bias_": bias_quant,
            "io_": io_quant,
            "gate_acc_": gate_acc_quant,
            "sigmoid_": sigmoid_quant,
            "tanh_": tanh_quant,
        }
        self.io_quant, self.layers = build_layers(
            self,
            GRU,
            self.sizes,
            quantizers,
            options,
            lambda inside: lambda: _cell(inside, shared_intra_layer_gate_acc_quant),
            one_for_all_gates=shared_intra_layer_weight_quant,
            hidden_bias_apart=True,
        )


def _cell(inside: ActivationQuantizers, one_acc: bool) -> GRUCell:
    cell = GRUCell()
    common = inside.new("gate_acc_") if one_acc else None
    for name in ("reset_acc_quant", "update_acc_quant", "new_acc_quant", "new_hidden_acc_quant"):
        setattr(cell, name, common if one_acc else inside.new("gate_acc_"))
    cell.reset_sigmoid_quant, cell.update_sigmoid_quant = inside.new("sigmoid_"), inside.new("sigmoid_")
    cell.new_tanh_quant = inside.new("tanh_")
    return cell
