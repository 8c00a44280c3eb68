"""The arguments of a call in a program, by name."""

from __future__ import annotations

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
