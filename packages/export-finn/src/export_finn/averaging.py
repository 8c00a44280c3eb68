"""Averages over whole images, where torch's exporter writes ``ReduceMean``: readers of QONNX know them as pools."""

from __future__ import annotations

from typing import Any, Final

_IMAGE_AXES: Final = ([2, 3], [-2, -1], [-1, -2], [3, 2])


def restore_average(model: Any) -> None:
    """Write a pool for each average over height and width that keeps them, in an ``onnx_ir`` model in place.

    It is ``AveragePool`` where ``Trunc`` is next, which FINN joins to it, and ``GlobalAveragePool`` otherwise.
    """
    from onnxscript import ir

    for node in list(model.graph):
        if node.op_type != "ReduceMean":
            continue
        x, result = node.inputs[0], node.outputs[0]
        if len(x.shape or ()) != 4 or len(result.shape or ()) != 4:
            continue
        axes = node.inputs[1].const_value if len(node.inputs) > 1 and node.inputs[1] is not None else None
        if axes is None or axes.numpy().tolist() not in _IMAGE_AXES:
            continue
        truncated = [user.op_type for user, _ in result.uses()] == ["Trunc"]
        name = "AveragePool" if truncated else "GlobalAveragePool"
        pool = type(node)("", name, [x], metadata_props=dict(node.metadata_props), num_outputs=1)
        if truncated:
            pool.attributes.add(ir.AttrInt64s("kernel_shape", [int(size) for size in x.shape[2:]]))
            pool.attributes.add(ir.AttrInt64s("strides", [1, 1]))
        new = pool.outputs[0]
        new.name, new.shape, new.type = result.name, result.shape, result.type
        model.graph.insert_before(node, pool)
        result.replace_all_uses_with(new, replace_graph_outputs=True)
        used = node.inputs[1]
        model.graph.remove(node, safe=True)
        if used.is_initializer() and not used.uses():
            del model.graph.initializers[used.name]
