"""Where and why ``torch.export`` cannot capture a model, told to whoever wrote the model."""

from __future__ import annotations

import traceback
from typing import Any

import torch
from torch import nn
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.utils import _pytree as pytree

from quant_core.errors import CaptureError, QuantError
from quant_core.last_line import last_line


def explained(failure: Exception, model: nn.Module, inputs: Any, *, varies: bool) -> QuantError:
    """The error to raise for a failure of ``torch.export``; one of our own with the path of the module that raised it.

    Args:
        failure: what was raised.
        model: the model that was captured.
        inputs: the example inputs, nested in any way.
        varies: whether axes were to vary.
    """
    path, line = _place(failure, model), last_line(failure)
    if isinstance(failure, QuantError):
        return failure.at(path) if path else failure
    reason = str(failure).strip().splitlines()
    shapes = [_described(leaf) for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, torch.Tensor)]
    remedy = (
        "make this line depend on shapes and constants only, not on the values of tensors, and use torch operations"
    )
    if not isinstance(failure, GuardOnDataDependentSymNode):
        remedy = f"call the model on these inputs: where that fails too, they do not fit it; otherwise {remedy}"
    if varies:
        remedy = (
            f"leave dynamic_shapes (--dynamic-batch) out: where that works, an axis cannot vary; otherwise {remedy}"
        )
        if _is_fixed_by_one(failure, inputs):
            remedy = (
                "give an example with at least 2 elements along each axis that varies: torch.export takes 1 as fixed"
            )
    return CaptureError(
        "torch.export cannot capture the model",
        where=", ".join(part for part in (path, line) if part) or type(model).__name__,
        why=f"{type(failure).__name__}: {reason[0] if reason else 'no message'}\n"
        f"the example inputs are {', '.join(shapes) or 'no tensors'}",
        fix=f"{remedy[0].upper()}{remedy[1:]}; the full report of torch.export is the cause of this error.",
    )


def _is_fixed_by_one(failure: Exception, inputs: Any) -> bool:
    """Whether an axis does not vary because the example has one element along it."""
    text = str(failure)
    specialized = "specialized due to hint of 1 " in text or "specialized it to be a constant (1)" in text
    return specialized and any(1 in leaf.shape for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, torch.Tensor))


def _described(tensor: torch.Tensor) -> str:
    return f"{tuple(tensor.shape)} of {tensor.dtype}"


def _place(failure: Exception, model: nn.Module) -> str:
    """The path of the deepest module that the failure passed through."""
    paths = {id(module): path for path, module in reversed(list(model.named_modules(remove_duplicate=False)))}
    path = ""
    for frame, _ in traceback.walk_tb(failure.__traceback__):
        owner = frame.f_locals.get("self")
        if id(owner) in paths and isinstance(owner, nn.Module):
            path = paths[id(owner)] or path
    return path
