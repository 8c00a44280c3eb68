"""Which gates a recurrent layer has, and in which order torch stacks them in its weights."""

from __future__ import annotations

from typing import Final

RNN: Final = ("",)
LSTM: Final = ("input", "forget", "cell", "output")
COUPLED_LSTM: Final = ("input", "cell", "output")
GRU: Final = ("reset", "update", "new")


def named(gate: str, what: str) -> str:
    """``input_acc_quant`` for one of several gates, ``gate_acc_quant`` for the only one.

    >>> named("input", "acc_quant"), named("input", "gate_params"), named("", "acc_quant"), named("", "gate_params")
    ('input_acc_quant', 'input_gate_params', 'gate_acc_quant', 'gate_params')
    """
    if gate:
        return f"{gate}_{what}"
    return what if what.startswith("gate_") else f"gate_{what}"
