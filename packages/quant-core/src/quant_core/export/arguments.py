"""The arguments of a call in a program, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx


def arguments(node: fx.Node) -> dict[str, Any]:
    """The arguments of a call by name, with their defaults.

    >>> from quant_core.export import capture
    >>> program = capture(torch.nn.ConstantPad1d(1, 0.5), (torch.zeros(1, 4),))
    >>> (node,) = program.graph.find_nodes(op="call_function", target=torch.ops.aten.pad.default)
    >>> arguments(node)["value"]
    0.5
    """
    assert isinstance(node.target, torch._ops.OpOverload)
    described = node.target._schema.arguments
    given = dict(zip((argument.name for argument in described), node.args, strict=False)) | dict(node.kwargs)
    return {argument.name: given.get(argument.name, argument.default_value) for argument in described}


def each(given: Any, axes: int) -> list[int]:
    """One number for each axis, from one for all of them or one for each.

    >>> each(3, 2), each([2], 2), each([1, 2], 2)
    ([3, 3], [2, 2], [1, 2])
    """
    numbers = [given] if isinstance(given, int) else list(given)
    return numbers * axes if len(numbers) == 1 else numbers


def zeros_around(given: Mapping[str, Any], kernel: Sequence[int]) -> list[tuple[int, int]]:
    """How many zeros a convolution puts before and behind the data, for each axis; one more goes behind.

    Args:
        given: its arguments by name.
        kernel: the size of its kernel.

    >>> zeros_around({"padding": [1, 2], "dilation": [1, 1]}, (3, 3)), zeros_around({"padding": "same", "dilation": [1]}, (4,))
    ([(1, 1), (2, 2)], [(1, 2)])
    """
    axes, padding = len(kernel), given["padding"]
    if padding == "valid":
        return [(0, 0)] * axes
    if padding != "same":
        return [(zeros, zeros) for zeros in each(padding, axes)]
    total = [step * (size - 1) for step, size in zip(each(given["dilation"], axes), kernel, strict=True)]
    return [(zeros // 2, zeros - zeros // 2) for zeros in total]
