"""Simplifying a converted ONNX model without making layers depend on each other.

These are the steps of torch's own optimizer without the one that lets equal initializers be one. With it, two layers whose
zero-points, scales or biases happen to be equal would share them under the name of the first, and names would change with values.
"""

from __future__ import annotations

from typing import Any

_ROUNDS = 2  # what the rules of the first round leave behind is folded in the second


def optimize(model: Any) -> None:
    """Fold constants, rewrite and remove what is not needed, in an ``onnx_ir`` model in place.

    Every initializer keeps its name and its users.
    """
    from onnxscript import ir, optimizer, rewriter

    passes = ir.passes.common
    optimizer.inline(model)
    for _ in range(_ROUNDS):
        optimizer.fold_constants(model, onnx_shape_inference=True)
        rewriter.rewrite(model)
    for step in (
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.LiftSubgraphInitializersToMainGraphPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.OutputFixPass(),
        passes.NameFixPass(),
    ):
        step(model)
