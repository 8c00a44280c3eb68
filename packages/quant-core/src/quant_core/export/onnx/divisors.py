"""Average pools that divide by a number of their own, which the ONNX operator ``AveragePool`` does not.

torch's exporter leaves the number out without a word. Here such a pool becomes the mean of ``n`` elements times ``n / divisor``.
"""

from __future__ import annotations

import math
from typing import Any, Final

import torch
from torch import fx
from torch.export import ExportedProgram

from quant_core.errors import UnsupportedError
from quant_core.export.arguments import arguments, each
from quant_core.export.builder import ProgramBuilder, constant_inputs, constant_value
from quant_core.export.program import Program

_ATEN = torch.ops.aten
_AXES: Final = {_ATEN.avg_pool2d.default: 2, _ATEN.avg_pool3d.default: 3}


def write_out_divisors(program: Program, exported: ExportedProgram, target: str) -> ExportedProgram:
    """Build a new program in which average pools divide by the number of their elements; the given one is left as it is.

    Raises:
        UnsupportedError: for windows beyond the edge (``ceil_mode``) of an input of varying size.
    """
    pools = {node for node in exported.graph.nodes if node.target in _AXES and _divisor(node) is not None}
    if not pools:
        return exported
    builder, names = ProgramBuilder(exported), constant_inputs(exported)
    for node in exported.graph.nodes:
        if node.op == "placeholder" and node.name in names:
            builder.new[node] = builder.constant(names[node.name], constant_value(exported, names[node.name]))
        elif node in pools:
            _write_out(builder, node, program, target)
        elif node.op not in ("placeholder", "output"):
            builder.copy(node)
    return builder.finish()


def _divisor(pool: fx.Node) -> Any:
    return arguments(pool)["divisor_override"]


def _write_out(builder: ProgramBuilder, pool: fx.Node, program: Program, target: str) -> None:
    operation: Any = pool.target
    given = arguments(pool)
    kernel = each(given["kernel_size"], _AXES[operation])
    stride = each(given["stride"], len(kernel)) if given["stride"] else kernel
    padding = each(given["padding"], len(kernel))
    source = builder.new[given["self"]]
    if given["ceil_mode"]:
        zeros = _beyond_the_edge(pool, kernel, stride, padding)
        if zeros is None:
            raise UnsupportedError(
                f"target {target!r} cannot lower {pool.target} with divisor_override and ceil_mode",
                where=str(program.where(pool)),
                why="the size of its input varies, and with it how many zeros the last windows hold",
                fix="Leave ceil_mode out, or export for a fixed size.",
            )
        value = _ATEN.constant_pad_nd.default(source.meta["val"], zeros)
        source = builder.call(_ATEN.constant_pad_nd.default, (source, zeros), like=pool, name=f"{pool.name}_padded")
        source.meta["val"] = value
    mean = builder.call(operation, (source, kernel, stride, padding), like=pool, name=f"{pool.name}_mean")
    builder.replace(pool, _ATEN.mul.Tensor, (mean, math.prod(kernel) / given["divisor_override"]), {})


def _beyond_the_edge(pool: fx.Node, kernel: list[int], stride: list[int], padding: list[int]) -> list[int] | None:
    """How far the last window reaches beyond the padded input, as ``constant_pad_nd`` takes it; ``None`` where sizes vary."""
    source: Any = pool.args[0]
    sizes, windows = (node.meta["val"].shape[-len(kernel) :] for node in (source, pool))
    if not all(isinstance(size, int) for size in (*sizes, *windows)):
        return None
    zeros = [
        max(0, (count - 1) * step + width - size - 2 * edge)
        for count, step, width, size, edge in zip(windows, stride, kernel, sizes, padding, strict=True)
    ]
    return [zero for beyond in reversed(zeros) for zero in (0, beyond)]
