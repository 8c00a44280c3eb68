"""torch's recurrent operators in ONNX, where torch's exporter has no operator for them or a plainer one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx

from quant_core.export.onnx.naming import origin
from quant_core.export.program import Program

_ATEN = torch.ops.aten


def rnn_translations(opset: int) -> dict[Any, Any]:
    """Plain recurrent layers as the operator ``RNN``; torch's exporter writes them out for one length."""
    return {
        _ATEN.rnn_tanh.input: partial(_rnn, opset, "Tanh"),
        _ATEN.rnn_relu.input: partial(_rnn, opset, "Relu"),
    }


def _rnn(
    opset: int,
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
) -> tuple[Any, Any]:
    """``(T, B, I)`` to ``(T, B, D·H)`` and ``(L·D, B, H)``; one node for each layer."""
    import onnxscript

    op = onnxscript.values.Opset("", opset)
    directions, each = 2 if bidirectional else 1, 4 if has_biases else 2
    x = op.Transpose(input, perm=[1, 0, 2]) if batch_first else input
    states = op.Split(hx, axis=0, num_outputs=num_layers) if num_layers > 1 else hx
    lasts = []
    for layer in range(num_layers):
        first = layer * directions * each
        sides = [params[first + side * each : first + (side + 1) * each] for side in range(directions)]
        biases = [[op.Unsqueeze(op.Concat(*side[2:], axis=0), [0]) for side in sides]] if has_biases else []
        matrices = [[op.Unsqueeze(side[place], [0]) for side in sides] for place in range(2)]
        operands = [parts[0] if directions == 1 else op.Concat(*parts, axis=0) for parts in (*matrices, *biases)]
        out, last = op.RNN(
            x,
            *operands,
            *([] if has_biases else [None]),
            None,
            states[layer] if num_layers > 1 else states,
            activations=[function] * directions,
            direction="bidirectional" if bidirectional else "forward",
            hidden_size=hx.shape[-1],
        )  # (T, D, B, H)
        x = op.Reshape(op.Transpose(out, perm=[0, 2, 1, 3]), [0, 0, -1])
        lasts.append(last)
    joined = lasts[0] if num_layers == 1 else op.Concat(*lasts, axis=0)
    return (op.Transpose(x, perm=[1, 0, 2]) if batch_first else x), joined


def couple_gates(program: Program) -> Callable[[Any], None]:
    """A step that says of each ``LSTM`` whose forget gate is one minus its input gate that it is: ``input_forget=1``.

    Such a layer was captured with the rows of the input gate, negated, as those of the forget gate, so that runtimes that do not
    read the attribute compute the same.
    """
    coupled = {
        node.name for node in program.graph.nodes if node.target is _ATEN.lstm.input and _is_coupled(program, node)
    }

    def step(model: Any) -> None:
        import onnx_ir as ir

        for node in model.graph:
            if node.op_type == "LSTM" and origin(node) in coupled:
                node.attributes["input_forget"] = ir.AttrInt64("input_forget", 1)

    return step


def _is_coupled(program: Program, lstm: fx.Node) -> bool:
    params: Any = lstm.args[2]
    hidden: int = params[1].meta["val"].shape[0] // 4
    gated = [param for param in params if param.meta["val"].shape[0] == 4 * hidden]
    values = [_value(program, param) for param in gated]
    return all(value is not None and torch.equal(value[:hidden], -value[hidden : 2 * hidden]) for value in values)


def _value(program: Program, node: fx.Node) -> Tensor | None:
    """The numbers of a constant, up to its scale."""
    stored = node.args[0] if node.target is torch.ops.quant.dequantize.default else node
    return program.constant(stored)
