"""Recurrent layers that project their output, which the ONNX operator ``LSTM`` does not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from quant_core.export.check_report import Refusal
from quant_core.export.program import Program


def refuse_projections(program: Program, target: str) -> Iterator[Refusal]:
    """One refusal for each of torch's LSTM layers with a ``proj_size``."""
    for node in program.graph.find_nodes(op="call_function", target=torch.ops.aten.lstm.input):
        states: Any = node.args[1]
        hidden, cell = (state.meta["val"].shape[-1] for state in states)
        if hidden != cell:
            yield Refusal(
                where=str(program.where(node)),
                op="aten.lstm.input",
                actual=f"proj_size={hidden}",
                constraint=f"{target} writes the ONNX operator LSTM, which projects no output",
                fix="Use quant_rnn.QuantLSTM with the same arguments, which is written step by step, or leave proj_size out.",
            )
