"""Writing a model for older versions of the standard operators than torch's exporter writes.

Torch's exporter starts at version 18. An operator of a later version than asked for is written as the version before knew it,
where that says the same; what has no such spelling is refused, all at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from quant_core.errors import UnsupportedError
from quant_core.export.onnx.defaults import is_default

OLDEST_WRITTEN: Final = 18
"""The version that torch's exporter starts from."""
_AXES_WERE_ATTRIBUTES: Final = frozenset(
    {
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceProd",
        "ReduceSumSquare",
    }
)
"""Operators that got their axes as an operand in version 18."""


def write_older(model: Any, opset: int, target: str) -> None:
    """Turn an ``onnx_ir`` model of version 18 into one of an older version, in place.

    Raises:
        UnsupportedError: names every operator that the older version does not have, or not with what is asked of it here.
    """
    problems = [f"{node.name or node.op_type}: {problem}" for node in model.graph for problem in _older(node, opset)]
    if problems:
        raise UnsupportedError(
            f"target {target!r} cannot write {len(problems)} of the model's operators for opset {opset}",
            where="; ".join(problems),
            why="they came, or came to do what is asked of them here, with a later version",
            fix=f"Use opset_version={OLDEST_WRITTEN} or later.",
        )
    model.graph.opset_imports[""] = opset
    for node in model.graph:
        node.version = None


def _older(node: Any, opset: int) -> Iterator[str]:
    """Write one node as the older version knows it; yields what stands against it."""
    import onnx

    if node.domain not in ("", "ai.onnx"):
        return
    try:
        newer, older = (onnx.defs.get_schema(node.op_type, version, "") for version in (OLDEST_WRITTEN, opset))
    except onnx.defs.SchemaError:
        yield f"{node.op_type} is not among its operators"
        return
    if newer.since_version == older.since_version:
        return
    if node.op_type in _AXES_WERE_ATTRIBUTES and len(node.inputs) > 1:
        yield from _axes_to_attribute(node)
    if node.op_type == "Reshape" and "allowzero" not in older.attributes and not _asks_for_zero(node):
        node.attributes.pop("allowzero", None)
    if node.op_type == "Split" and len(node.inputs) == 1:
        yield from _equal_parts(node)
    for name in [name for name in node.attributes if name not in older.attributes]:
        if is_default(node.attributes[name], newer.attributes[name]):
            node.attributes.pop(name)
        else:
            yield f"its {name} is not known"
    if len(node.inputs) > older.max_input:
        yield f"{node.op_type} takes {older.max_input} operands"
    yield from _kinds(node, older)


def _axes_to_attribute(node: Any) -> Iterator[str]:
    from onnxscript import ir

    axes = node.inputs[1]
    if axes is None:
        node.resize_inputs(1)
    elif axes.const_value is None:
        yield "its axes are computed at run time"
    else:
        node.attributes["axes"] = ir.AttrInt64s("axes", axes.const_value.numpy().reshape(-1).tolist())
        node.resize_inputs(1)
        if not axes.uses() and axes.name in node.graph.initializers:
            node.graph.initializers.pop(axes.name)


def _asks_for_zero(node: Any) -> bool:
    """Whether a new shape has a size of 0, which older versions take for the size of the axis at that place.

    A shape that is computed has one only where the tensor is empty along the axis that it was read from.
    """
    shape = node.inputs[1].const_value
    return shape is not None and bool((shape.numpy() == 0).any())


def _equal_parts(node: Any) -> Iterator[str]:
    """A number of parts was the number of results, all of one size."""
    count = node.attributes.pop("num_outputs", None)
    axis = node.attributes.get("axis")
    size = node.inputs[0].shape[axis.as_int() if axis is not None else 0] if node.inputs[0].shape is not None else None
    if count is not None and (not isinstance(size, int) or size % count.as_int() != 0):
        yield "its parts are of different sizes"


def _kinds(node: Any, older: Any) -> Iterator[str]:
    """Operands of an element type that the older version does not take."""
    allowed = {one.type_param_str: set(one.allowed_type_strs) for one in older.type_constraints}
    for value, formal in zip(node.inputs, older.inputs, strict=False):
        kinds = allowed.get(formal.type_str)
        if value is not None and value.dtype is not None and kinds is not None:
            kind = f"tensor({value.dtype.name.lower()})"
            if kind not in kinds:
                yield f"{node.op_type} does not take {kind}"
