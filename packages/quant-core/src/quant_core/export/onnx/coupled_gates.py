"""Saying in an ONNX file that the forget gate of an ``LSTM`` is one minus its input gate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from quant_core.export.onnx.naming import origin
from quant_core.export.program import Program

_LSTMS = (torch.ops.aten.lstm.input, torch.ops.quant.lstm.default)


def couple_gates(program: Program) -> Callable[[Any], None]:
    """A step that says of each ``LSTM`` whose forget gate is one minus its input gate that it is: ``input_forget=1``.

    Such a layer was captured with the rows of the input gate, negated, as those of the forget gate, so that runtimes that do not
    read the attribute compute the same.
    """
    coupled = {node.name for node in program.graph.nodes if node.target in _LSTMS and _is_coupled(program, node)}

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
