"""torch's recurrent operators as the ONNX operators ``LSTM``, ``GRU`` and ``RNN``, one for each layer.

torch's exporter writes plain recurrent layers out for one length, and knows no operators for a varying one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import torch

from quant_core.ops.recurrent import STANDS_FOR

_ATEN = torch.ops.aten
_ROWS: Final = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}
"""Where the gates of ONNX are among torch's: input, output, forget, cell among input, forget, cell, output; update, reset, new
among reset, update, new."""
_KINDS: Final = {
    _ATEN.lstm.input: ("LSTM", ""),
    _ATEN.gru.input: ("GRU", ""),
    _ATEN.rnn_tanh.input: ("RNN", "Tanh"),
    _ATEN.rnn_relu.input: ("RNN", "Relu"),
}


def recurrent_translations(opset: int) -> dict[Any, Any]:
    """How to emit the operators of torch, and those that stand for them where the number of steps varies."""
    known = {**{aten: aten for aten in _KINDS}, **STANDS_FOR}
    return {op: partial(_recurrent, opset, *_KINDS[aten]) for op, aten in known.items()}


def _recurrent(
    opset: int,
    kind: str,
    function: str,
    input: Any,
    hx: Any,
    params: Sequence[Any],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Any, ...]:
    """``(T, B, I)`` to ``(T, B, D·H)``, and states ``(L·D, B, H)``."""
    import onnxscript

    op = onnxscript.values.Opset("", opset)
    starts = list(hx) if kind == "LSTM" else [hx]
    size, directions, each = starts[0].shape[-1], 2 if bidirectional else 1, 4 if has_biases else 2
    rows = [gate * size + row for gate in _ROWS[kind] for row in range(size)]
    options: dict[str, Any] = {"hidden_size": size}
    if bidirectional:
        options["direction"] = "bidirectional"
    if function:
        options["activations"] = [function] * directions
    if kind == "GRU":
        options["linear_before_reset"] = 1

    order, front = op.Constant(value_ints=rows), op.Constant(value_ints=[0])

    def arranged(parameter: Any) -> Any:
        return parameter if kind == "RNN" else op.Gather(parameter, order, axis=0)

    def joined(parts: list[Any]) -> Any:
        return parts[0] if len(parts) == 1 else op.Concat(*parts, axis=0)

    x = op.Transpose(input, perm=[1, 0, 2]) if batch_first else input
    states = [op.Split(start, axis=0, num_outputs=num_layers) if num_layers > 1 else [start] for start in starts]
    lasts: list[list[Any]] = [[] for _ in starts]
    for layer in range(num_layers):
        first = layer * directions * each
        sides = [params[first + side * each : first + (side + 1) * each] for side in range(directions)]
        operands = [joined([op.Unsqueeze(arranged(side[place]), front) for side in sides]) for place in range(2)]
        biases = (
            [op.Unsqueeze(op.Concat(*map(arranged, side[2:]), axis=0), front) for side in sides] if has_biases else []
        )
        operands.append(joined(biases) if biases else None)
        out, *after = getattr(op, kind)(x, *operands, None, *(start[layer] for start in states), **options)
        sides_last = partial(op.Transpose, perm=[0, 2, 1, 3])  # (T, D, B, H) to (T, B, D, H)
        x = op.Squeeze(out, [1]) if directions == 1 else op.Reshape(sides_last(out), [0, 0, -1])
        for found, part in zip(lasts, after, strict=False):
            found.append(part)
    return op.Transpose(x, perm=[1, 0, 2]) if batch_first else x, *map(joined, lasts)
