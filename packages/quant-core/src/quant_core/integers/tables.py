"""Functions of one value, such as tanh: all results that there can be, in a table of integers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import torch
from torch import fx

from quant_core.export.quantizer import Quantizer
from quant_core.export.ranges import bounds
from quant_core.integers.bench import Bench, Cannot, Pending, reference
from quant_core.integers.grid import bits_of, grid_of
from quant_core.ops.integer import quantize_levels

LARGEST: Final = 2**16
"""The most results that a table holds."""


def tabulate(bench: Bench, node: fx.Node) -> None:
    """A function of one value: the next quantizer puts all its results in a table."""
    operand: Any = node.args[0]
    known = bench.known.get(operand)
    if isinstance(known, Pending):
        bench.known[node] = replace(known, functions=(*known.functions, node))
    else:
        bench.known[node] = Pending(origin=bench.plain(node, bench.carried(operand)), functions=(node,))


def look_up_results(bench: Bench, node: fx.Node, quantizer: Quantizer, pending: Pending) -> str:
    """All results that there can be, computed as the model does."""
    held = pending.origin
    count = held.most - held.least + 1
    scale, zero_point = grid_of(quantizer)
    if quantizer.op != "quant::int" or scale.numel() > 1 or zero_point.numel() > 1 or count > LARGEST:
        raise Cannot(
            f"{pending.functions[-1].target} of {count} different integers",
            f"integers makes a table of such a function, of at most {LARGEST} integers and with one scale",
            "Quantize what the function takes per tensor and to 16 bits or fewer.",
        )
    integers = torch.arange(held.least, held.most + 1)
    x = (integers - held.zero_point[0]).to(torch.float32) * torch.tensor(float(held.scale[0]))
    for function in pending.functions:
        operation: Any = function.target
        x = operation(x, *function.args[1:], **function.kwargs)
    low, high = bounds(quantizer)
    levels = quantize_levels(x, scale, zero_point, float(low), float(high), quantizer.rounding_mode)
    table = bench.array(quantizer.where.part("table"), levels.to(torch.int64))
    arguments = {"input": reference(held), "table": table, "low": held.least}
    return bench.step(node, "look_up", arguments, low, high, **bits_of(quantizer))
