"""Outputs that are constants, such as the scale of a quantized tensor: qonnx takes results of nodes only."""

from __future__ import annotations

from typing import Any

from quant_core.export.onnx import SCOPES


def compute_constant_outputs(model: Any) -> None:
    """Put an ``Identity`` between each constant and the output that it is, in an ``onnx_ir`` model in place."""
    graph = model.graph
    for index, value in enumerate(list(graph.outputs)):
        if not value.is_initializer():
            continue
        kind = type(next(iter(graph)))  # of a graph that holds a quantizer at least
        node = kind("", "Identity", [value], metadata_props={SCOPES: "['', '']"}, num_outputs=1)
        node.outputs[0].shape, node.outputs[0].type = value.shape, value.type
        graph.append(node)
        graph.outputs[index] = node.outputs[0]
