"""Recurrent layers (RNN, LSTM, GRU) with quantized weights and states.

Importing this package does not import torch; the layers are loaded on first use.

>>> import torch
>>> import quant_rnn
>>> lstm = quant_rnn.QuantLSTM(10, 20, weight_bit_width=4)
>>> outputs, (hidden, cell) = lstm(torch.randn(5, 2, 10))
>>> outputs.shape
torch.Size([5, 2, 20])
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quant_core.lazy import lazy_names

if TYPE_CHECKING:
    from quant_rnn.gru import QuantGRU as QuantGRU
    from quant_rnn.layer import QuantRecurrent as QuantRecurrent
    from quant_rnn.lstm import QuantLSTM as QuantLSTM
    from quant_rnn.rnn import QuantRNN as QuantRNN

    __version__: str

__getattr__, __dir__ = lazy_names(
    __name__,
    "quant-rnn",
    {
        "QuantGRU": "quant_rnn.gru",
        "QuantLSTM": "quant_rnn.lstm",
        "QuantRNN": "quant_rnn.rnn",
        "QuantRecurrent": "quant_rnn.layer",
    },
)
