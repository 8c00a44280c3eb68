"""The gated recurrent unit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from quant_core.errors import ConfigurationError
from quant_core.quant import Int8ActPerTensorFloat, Int8WeightPerTensorFloat, Int32Bias, Uint8ActPerTensorFloat
from quant_core.tensor import QuantTensor
from quant_nn.options import split_options
from quant_nn.quantizers import Quantizer, build_proxy
from quant_rnn.building import ActivationQuantizers, ParameterQuantizers, bias_names, build_gates
from quant_rnn.direction import Direction
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
        if return_quant_tensor and io_quant is None:
            raise ConfigurationError(
                "return_quant_tensor=True has nothing to return",
                where=type(self).__name__,
                why="the output is quantized by io_quant, which is None",
                fix="Pass a quantizer as io_quant, or set return_quant_tensor=False.",
            )
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
        bias_quant = bias_quant if bias else None
        quantizers = {
            "weight_": weight_quant,
            "bias_": bias_quant,
            "io_": io_quant,
            "gate_acc_": gate_acc_quant,
            "sigmoid_": sigmoid_quant,
            "tanh_": tanh_quant,
        }
        absent = {} if bias else {"bias_": "this layer has no bias"}
        found = split_options(type(self), options, quantizers, absent)
        inside = ActivationQuantizers(self, quantizers, found)
        of_parameters = ParameterQuantizers(
            weight=weight_quant, bias=bias_quant, options=found, one_for_all_gates=shared_intra_layer_weight_quant
        )
        self.io_quant = build_proxy(self, io_quant, "io_", found["io_"], kind="activation")
        self.layers = nn.ModuleList()
        for layer in range(num_layers):
            first = None
            self.layers.append(nn.ModuleList())
            for side in range(self.sizes.directions):
                gates = build_gates(self, GRU, self.sizes, layer, side, of_parameters, first)
                first = gates if shared_input_hidden_weights else None
                self.layers[layer].append(  # type: ignore[operator]
                    Direction(
                        self,
                        gates,
                        bias_names(self.sizes, layer, side),
                        hidden_bias_apart=True,
                        cell=_cell(inside, shared_intra_layer_gate_acc_quant),
                        projection=None,
                        io_quant=self.io_quant,
                        reverse=side == 1,
                        where=self._named(),
                    )
                )

    def forward(
        self, input: Tensor | QuantTensor | PackedSequence, hx: Tensor | QuantTensor | None = None
    ) -> tuple[Any, Any]:
        """``(output, h_n)``, as :meth:`quant_rnn.QuantRNN.forward`.

        Args:
            input: the sequence; a quantized one is quantized again by ``io_quant``.
            hx: the hidden state before the first step, ``(L·D, B, H)``; zeros by default.

        Raises:
            InputError: when input or state does not fit, or a bias cannot be quantized.
        """
        out, (hidden,) = self._compute(input, None if hx is None else (hx,))
        return self._given_back(out), self._joined(hidden)


def _cell(inside: ActivationQuantizers, one_acc: bool) -> GRUCell:
    cell = GRUCell()
    common = inside.new("gate_acc_") if one_acc else None
    for name in ("reset_acc_quant", "update_acc_quant", "new_acc_quant", "new_hidden_acc_quant"):
        setattr(cell, name, common if one_acc else inside.new("gate_acc_"))
    cell.reset_sigmoid_quant, cell.update_sigmoid_quant = inside.new("sigmoid_"), inside.new("sigmoid_")
    cell.new_tanh_quant = inside.new("tanh_")
    return cell
