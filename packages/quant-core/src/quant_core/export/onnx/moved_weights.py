"""Moving what only rearranges a stored weight into the weight itself: its rows, and a new first axis.

ONNX wants the gates of a recurrent layer in another order than torch, and an axis for the directions. The integers behind a
``DequantizeLinear`` and their scales are stored that way, so that it feeds the operator.
"""

from __future__ import annotations

from typing import Any

from quant_core.export.onnx.naming import forget_origin


def move_into_weights(model: Any) -> None:
    """Do so in an ``onnx_ir`` model, in place, wherever nothing else reads the weight."""
    for node in list(model.graph):
        if node.op_type not in ("Gather", "Unsqueeze") or node.domain:
            continue
        weight = node.inputs[0].producer()
        if weight is not None and weight.op_type == "DequantizeLinear" and _is_only_for(weight, node):
            _move(model.graph, node, weight)


def _is_only_for(weight: Any, node: Any) -> bool:
    """Whether a ``DequantizeLinear`` of constants is for one node, which moves its first axis."""
    index = node.inputs[1].const_value
    shown = weight.outputs[0].is_graph_output() or node.outputs[0].is_graph_output()
    if index is None or shown or len(weight.outputs[0].uses()) > 1:
        return False
    if _number(weight, "block_size", 0) or not all(_is_its_own(part) for part in weight.inputs if part is not None):
        return False
    if node.op_type == "Gather":
        rows = weight.inputs[0].const_value.numpy().shape[0]
        return _number(node, "axis", 0) == 0 and sorted(index.numpy().reshape(-1).tolist()) == list(range(rows))
    return bool((index.numpy() == 0).all())


def _is_its_own(part: Any) -> bool:
    return part.const_value is not None and part.is_initializer() and len(part.uses()) == 1


def _number(node: Any, name: str, default: int) -> int:
    """An attribute; what ONNX takes where it is left out."""
    found = node.attributes.get(name)
    return default if found is None else int(found.as_int())


def _move(graph: Any, node: Any, weight: Any) -> None:
    import onnx_ir as ir

    chosen = node.inputs[1]
    index = chosen.const_value.numpy()
    integers, *grid = (part for part in weight.inputs if part is not None)
    axis = _number(weight, "axis", 1)
    if node.op_type == "Gather":
        along = [part for part in grid if axis == 0 and part.const_value.numpy().ndim == 1]
        for part in (integers, *along):
            _store(part, part.const_value.numpy()[index])
    else:
        _store(integers, integers.const_value.numpy()[None])
        if any(part.const_value.numpy().ndim == 1 for part in grid):
            weight.attributes["axis"] = ir.AttrInt64("axis", axis + 1)
    weight.outputs[0].shape = node.outputs[0].shape
    node.outputs[0].replace_all_uses_with(weight.outputs[0])
    forget_origin(weight)  # what it gives is no longer what the node of the program gives
    graph.remove(node, safe=True)
    if chosen.is_initializer() and not chosen.uses():
        del graph.initializers[chosen.name]


def _store(value: Any, array: Any) -> None:
    import onnx_ir as ir

    value.const_value = ir.Tensor(array, name=value.name)
    value.shape = ir.Shape(array.shape)
