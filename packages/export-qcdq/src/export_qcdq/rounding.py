"""Rounding modes as sequences of ONNX operators, each exact for every float.

``QuantizeLinear`` rounds to the nearest integer, ties to even, and nothing else.
"""

from __future__ import annotations

from typing import Any


def rounded(op: Any, x: Any, mode: str) -> Any:
    """Emit the operators that round a value.

    Args:
        op: the standard operators of ``onnxscript``.
        x: the ONNX value.
        mode: a rounding mode of :data:`quant_core.ops.ROUNDING_MODES`.
    """
    if mode == "FLOOR":
        return op.Floor(x)
    if mode == "CEIL":
        return op.Ceil(x)
    if mode == "TO_ZERO":
        return op.Mul(op.Sign(x), op.Floor(op.Abs(x)))
    if mode == "HALF_UP":
        return _half_up(op, x)
    if mode == "DPU":
        return op.Where(op.Less(x, op.Constant(value_float=0.0)), _half_up(op, x), op.Round(x))
    assert mode == "ROUND", mode
    return op.Round(x)


def _half_up(op: Any, x: Any) -> Any:
    """``floor(x) + [x − floor(x) ≥ ½]``, because ``x + ½`` is rounded for the largest float below ½."""
    below = op.Floor(x)
    return op.Add(below, op.Cast(op.GreaterOrEqual(op.Sub(x, below), op.Constant(value_float=0.5)), to=1))
