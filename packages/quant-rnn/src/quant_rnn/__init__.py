"""Recurrent layers (RNN, LSTM, GRU) with quantized weights and states.

Planned: this version holds nothing yet and registers nothing.
"""

from importlib.metadata import version as _version

__version__ = _version("quant-rnn")
