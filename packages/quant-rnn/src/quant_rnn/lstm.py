"""The long short-term memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from quant_core.errors import ConfigurationError, InputError
from quant_core.proxies import QuantProxy
from quant_core.quant import Int8ActPerTensorFloat, Int8WeightPerTensorFloat, Int32Bias, Uint8ActPerTensorFloat
from quant_core.tensor import QuantTensor
from quant_nn.quantizers import Quantizer
from quant_rnn.building import ActivationQuantizers, build_layers
from quant_rnn.gates import COUPLED_LSTM, LSTM
from quant_rnn.layer import QuantRecurrent
from quant_rnn.lstm_cell import LSTMCell


class QuantLSTM(QuantRecurrent):
    """``nn.LSTM`` with quantized weights, biases, inputs, outputs, accumulators, gates and cell states.

    With ``i, f, o = Q_s(sigmoid(Q_acc(W·x + U·h + b)))`` and ``g = Q_t(tanh(Q_acc(W·x + U·h + b)))``, all ``W``, ``U``, ``b``,
    ``x``, ``h`` quantized:

        ``c' = Q_c(Q_c(f·c) + Q_c(i·g))`` and ``h' = Q_io(o·Q_t(tanh(c')))``

    Shapes as in :class:`~quant_rnn.QuantRNN`; the cell state is ``(L·D, B, H)``, and with ``proj_size`` hidden state and
    outputs have that many features. Parameters have the names of ``nn.LSTM``. With coupled gates the matrices hold three gates,
    ``i, g, o``.

    Args:
        input_size: features of the input, ``I``.
        hidden_size: features of the cell state, ``H``.
        num_layers: layers on top of each other, ``L``.
        bias: whether there are biases.
        batch_first: whether the first axis of input and output is the batch.
        dropout: share of the outputs of each layer but the last one that are set to zero in training.
        bidirectional: whether the sequence is also read from its end.
        proj_size: features that the output is projected to; 0 for none.
        weight_quant: quantizer of the weights; each gate of each layer and direction has its own. The weights of a gate from the
            input and those from the hidden state share it.
        bias_quant: quantizer of the sum of both biases, at the scale of the products that it is added to.
        io_quant: quantizer of input, hidden states and output: one for all layers and directions.
        gate_acc_quant: quantizer of what sigmoid and tanh are applied to; each gate has its own.
        sigmoid_quant: quantizer of the gates behind the sigmoid; each has its own.
        tanh_quant: quantizer behind the tanh of the cell gate, and of that of the cell state; each has its own.
        cell_state_quant: quantizer of the cell state and of its two terms: one for all layers and directions.
        coupled_input_forget_gates: let the forget gate be ``1 − i``, without weights of its own.
        cat_output_cell_states: return the cell states of all layers and directions as one tensor, and not as a list.
        shared_input_hidden_weights: let the second direction have the input weights of the first one.
        shared_intra_layer_weight_quant: one weight quantizer for all gates of a layer and direction.
        shared_intra_layer_gate_acc_quant: one quantizer of accumulators for all gates of a layer and direction.
        shared_cell_state_quant: one quantizer of cell states for all layers and directions.
        return_quant_tensor: return quantized tensors, with their scale, instead of plain ones.
        device: where the parameters are.
        dtype: their type.
        **options: options of the quantizers with the prefixes ``weight_``, ``bias_``, ``io_``, ``gate_acc_``, ``sigmoid_``,
            ``tanh_`` and ``cell_state_``.

    Raises:
        ConfigurationError: when options contradict each other.
        UnusedAttributeError: for an option that nothing reads.

    >>> import torch
    >>> outputs, (hidden, cell) = QuantLSTM(10, 20, num_layers=2, weight_bit_width=4)(torch.randn(5, 2, 10))
    >>> outputs.shape, hidden.shape, cell.shape
    (torch.Size([5, 2, 20]), torch.Size([2, 2, 20]), torch.Size([2, 2, 20]))
    """

    kind = "LSTM"
    state_names = ("hidden state", "cell state")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        weight_quant: Quantizer = Int8WeightPerTensorFloat,
        bias_quant: Quantizer = Int32Bias,
        io_quant: Quantizer = Int8ActPerTensorFloat,
        gate_acc_quant: Quantizer = Int8ActPerTensorFloat,
        sigmoid_quant: Quantizer = Uint8ActPerTensorFloat,
        tanh_quant: Quantizer = Int8ActPerTensorFloat,
        cell_state_quant: Quantizer = Int8ActPerTensorFloat,
        coupled_input_forget_gates: bool = False,
        cat_output_cell_states: bool = True,
        shared_input_hidden_weights: bool = False,
        shared_intra_layer_weight_quant: bool = False,
        shared_intra_layer_gate_acc_quant: bool = False,
        shared_cell_state_quant: bool = True,
        return_quant_tensor: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        _check_cell_states(
            type(self).__name__,
            io_quant,
            cell_state_quant,
            cat=cat_output_cell_states,
            shared=shared_cell_state_quant,
            returned=return_quant_tensor,
        )
        gates = COUPLED_LSTM if coupled_input_forget_gates else LSTM
        self._init_sizes(
            gates=len(gates),
            input_size=input_size,
            hidden_size=hidden_size,
            num_layers=num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            proj_size=proj_size,
            shared_input_hidden_weights=shared_input_hidden_weights,
            device=device,
            dtype=dtype,
        )
        self.coupled_input_forget_gates = coupled_input_forget_gates
        self.cat_output_cell_states = cat_output_cell_states
        self.return_quant_tensor = return_quant_tensor
        quantizers = {
            "weight_": weight_quant,
            "bias_": bias_quant,
            "io_": io_quant,
            "gate_acc_": gate_acc_quant,
            "sigmoid_": sigmoid_quant,
            "tanh_": tanh_quant,
            "cell_state_": cell_state_quant,
        }

        def cells_of(inside: ActivationQuantizers) -> Callable[[], LSTMCell]:
            common = inside.new("cell_state_") if shared_cell_state_quant else None

            def cell() -> LSTMCell:
                made = _cell(inside, coupled_input_forget_gates, shared_intra_layer_gate_acc_quant)
                made.cell_state_quant = common if shared_cell_state_quant else inside.new("cell_state_")
                return made

            return cell

        self.io_quant, self.layers = build_layers(
            self,
            gates,
            self.sizes,
            quantizers,
            options,
            cells_of,
            one_for_all_gates=shared_intra_layer_weight_quant,
        )

    def forward(
        self, input: Tensor | QuantTensor | PackedSequence, hx: Sequence[Any] | None = None
    ) -> tuple[Any, tuple[Any, Any]]:
        """``(output, (h_n, c_n))``: the outputs at all steps, and the states of all layers after the last one.

        Args:
            input: the sequence; a quantized one is quantized again by ``io_quant``.
            hx: hidden and cell state before the first step, ``(L·D, B, P)`` and ``(L·D, B, H)``; zeros by default.

        Raises:
            InputError: when input or states do not fit, or a bias cannot be quantized.
        """
        if hx is not None and (not isinstance(hx, (tuple, list)) or len(hx) != 2):
            raise InputError(
                "an LSTM starts from two states",
                where=self._named(),
                why=f"got one {type(hx).__name__}" if not isinstance(hx, (tuple, list)) else f"got {len(hx)}",
                fix="Give the hidden state and the cell state as (h, c), or none to start from zeros.",
            )
        out, (hidden, cells) = self._compute(input, hx)
        cell_states = self._joined(cells) if self.cat_output_cell_states else [self._hand_on(cell) for cell in cells]
        return self._given_back(out), (self._joined(hidden), cell_states)

    def float_repr(self) -> str:
        """The options of torch.nn, and whether the gates are coupled."""
        return super().float_repr() + (", coupled_input_forget_gates=True" if self.coupled_input_forget_gates else "")


def _cell(inside: ActivationQuantizers, coupled: bool, one_acc: bool) -> LSTMCell:
    cell = LSTMCell(coupled)
    common: QuantProxy | None = inside.new("gate_acc_") if one_acc else None
    kinds: Mapping[str, str] = {"input": "sigmoid", "forget": "sigmoid", "cell": "tanh", "output": "sigmoid"}
    for gate in cell.gates:
        setattr(cell, f"{gate}_acc_quant", common if one_acc else inside.new("gate_acc_"))
        setattr(cell, f"{gate}_{kinds[gate]}_quant", inside.new(f"{kinds[gate]}_"))
    cell.hidden_state_tanh_quant = inside.new("tanh_")
    return cell


def _check_cell_states(
    layer: str, io_quant: Quantizer, cell_state_quant: Quantizer, *, cat: bool, shared: bool, returned: bool
) -> None:
    if cat and cell_state_quant is not None and not shared:
        raise ConfigurationError(
            "cell states of several quantizers cannot be returned as one tensor",
            where=layer,
            why="shared_cell_state_quant is False, so that each layer and direction has a scale of its own, and "
            "cat_output_cell_states is True",
            fix="Set cat_output_cell_states=False to get a list of cell states, or shared_cell_state_quant=True.",
        )
    if returned and cell_state_quant is None:
        raise ConfigurationError(
            "return_quant_tensor=True cannot return the cell state",
            where=layer,
            why="it is quantized by cell_state_quant, which is None",
            fix="Pass a quantizer as cell_state_quant, or set return_quant_tensor=False.",
        )
    if returned and io_quant is None:
        raise ConfigurationError(
            "return_quant_tensor=True cannot return the output",
            where=layer,
            why="it is quantized by io_quant, which is None",
            fix="Pass a quantizer as io_quant, or set return_quant_tensor=False.",
        )
