"""Batch norm in eval mode: a factor and an offset for each channel, which change the grid and no integer."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, fx

from quant_core.integers.bench import Bench, Cannot, named_arguments
from quant_core.integers.carried import float32_of, fractions


def normalize(bench: Bench, node: fx.Node) -> None:
    """``(x − mean) / sqrt(var + eps) · weight + bias = x · factor + offset``, both in float32.

    The integers stay as they are: scale and offset of their grid are those of each channel. A factor may be negative.
    """
    given = named_arguments(node)
    held, axis = bench.carried(given["input"]), 1 - len(node.meta["val"].shape)
    factor, offset = _factor_and_offset(bench, given)
    if held.between != (None, None):
        held = bench.settled(node, held)
    if held.axis not in (None, axis):
        raise Cannot(
            f"channels on axis {held.axis} of a value that has its own on axis {axis}",
            "integers takes scales along one axis",
            "Quantize per tensor before it.",
        )
    if not all(factor):
        raise Cannot(
            "a batch norm that multiplies a channel by 0",
            "integers needs a scale for each channel",
            "Remove the channel, or give its weight a value other than 0.",
        )
    scales = [float32_of(_at(held.scale, index) * one) for index, one in enumerate(factor)]
    offsets = [
        _at(held.offset, index) * one + shift for index, (one, shift) in enumerate(zip(factor, offset, strict=True))
    ]
    bench.known[node] = replace(held, scale=tuple(scales), offset=tuple(offsets), axis=axis)


def _factor_and_offset(bench: Bench, given: dict[str, Any]) -> tuple[tuple[Fraction, ...], tuple[Fraction, ...]]:
    mean, var, weight, bias = (
        _constant(bench, given.get(name)) for name in ("running_mean", "running_var", "weight", "bias")
    )
    if given.get("training") or mean is None or var is None:
        raise Cannot(
            "a batch norm that follows each batch",
            "integers takes the running mean and variance as constants",
            "Set track_running_stats=True on it.",
        )
    factor = (var + given["eps"]).rsqrt() if weight is None else weight * (var + given["eps"]).rsqrt()
    offset = -mean * factor if bias is None else bias - mean * factor
    return fractions(factor.to(torch.float32)), fractions(offset.to(torch.float32))


def _constant(bench: Bench, node: Any) -> Tensor | None:
    found = bench.program.constant(node)
    return None if found is None else found.to(torch.float64)


def _at(column: tuple[Fraction, ...], index: int) -> Fraction:
    return column[index] if len(column) > 1 else column[0]
