"""Operations that take quantized values apart become one operation for each part, so that targets know one form of it.

``split``, ``chunk`` and their like become ``slice``, and ``unbind`` becomes ``select``; parts that nothing uses are left out.
Only values that were moved or picked since their quantizers are taken: what a recurrent layer computes from step to step keeps
the form that targets know it by.
"""

from __future__ import annotations

import operator
from typing import Any, Final

import torch
from torch import fx
from torch.export import ExportedProgram

from quant_core.export.arguments import arguments
from quant_core.export.builder import ProgramBuilder, constant_inputs, constant_value
from quant_core.export.grid import may_keep_grid
from quant_core.export.program import Program

_ATEN = torch.ops.aten
_ALONG: Final = frozenset(
    {
        _ATEN.chunk.default,
        _ATEN.split.Tensor,
        _ATEN.split.sizes,
        _ATEN.split_with_sizes.default,
        _ATEN.tensor_split.indices,
        _ATEN.tensor_split.sections,
        _ATEN.unsafe_chunk.default,
        _ATEN.unsafe_split.Tensor,
        _ATEN.unsafe_split_with_sizes.default,
    }
)
"""Operations whose results lie behind one another along an axis."""


def with_one_result(program: Program) -> ExportedProgram:
    """Build a new program in which quantized values are taken apart part by part; the given one is left as it is.

    An operation stays as it is where the size of a part varies.
    """
    exported, apart = program.exported, _taken_apart(program)
    if not apart:
        return exported
    builder, names = ProgramBuilder(exported), constant_inputs(exported)
    for node in exported.graph.nodes:
        if node.op == "placeholder" and node.name in names:
            builder.new[node] = builder.constant(names[node.name], constant_value(exported, names[node.name]))
        elif _source(node) in apart:
            if node.users:
                _take(builder, node)
        elif node.op not in ("placeholder", "output") and node not in apart:
            builder.copy(node)
    return builder.finish()


def _taken_apart(program: Program) -> set[fx.Node]:
    """The operations with several results that take quantized values apart."""
    held = {quantizer.name for quantizer in program.quantizers if quantizer.role == "activation"}
    found: set[fx.Node] = set()
    for node in program.graph.nodes:
        if node.op != "call_function" or not all(used.name in held for used in node.all_input_nodes):
            continue
        if node.target in _ALONG or node.target is _ATEN.unbind.int:
            if all(_source(user) is node for user in node.users) and _is_fixed(node):
                found.add(node)
                held |= {user.name for user in node.users}
        elif node.all_input_nodes and may_keep_grid(node):
            held.add(node.name)
    return found


def _source(node: fx.Node) -> Any:
    """What a node is one of the results of; ``None`` for everything else."""
    return node.args[0] if node.target is operator.getitem else None


def _is_fixed(apart: fx.Node) -> bool:
    axis: Any = arguments(apart)["dim"]
    parts = apart.meta["val"]
    return apart.target is _ATEN.unbind.int or all(isinstance(part.shape[axis], int) for part in parts)


def _take(builder: ProgramBuilder, node: fx.Node) -> None:
    """Put the operation that gives one part in the place of the one that picks it among all of them."""
    apart, index = node.args
    assert isinstance(apart, fx.Node)
    assert isinstance(index, int)
    given = arguments(apart)
    whole, axis, name = builder.new[given["self"]], given["dim"], f"{apart.name}_{index}"
    if apart.target is _ATEN.unbind.int:
        new = builder.replace(node, _ATEN.select.int, (whole, axis, index), {}, name)
    else:
        sizes = [part.shape[axis] for part in apart.meta["val"]]
        start = sum(sizes[:index])
        new = builder.replace(node, _ATEN.slice.Tensor, (whole, axis, start, start + sizes[index]), {}, name)
    new.meta = {**apart.meta, "val": node.meta["val"]}
