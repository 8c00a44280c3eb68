"""The thresholds of a quantizer: from which value on each of its levels is reached."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, fx

from quant_core.export import Program, Quantizer
from quant_core.ops import integer_range
from quant_core.ops.integer import quantize_levels

Rounding = Callable[[Tensor], Tensor]


def thresholds(rounding: Rounding, levels: Tensor, start: Tensor) -> Tensor:
    """For each level ``k`` the smallest float32 ``t`` with ``rounding(t) ≥ k``.

    So ``x ≥ t`` holds where, and only where, ``x`` is rounded to ``k`` or higher: ties go where the model takes them.

    Args:
        rounding: from values to levels, monotonic, both ``(C, n)``.
        levels: the levels ``k``, ``(n,)``.
        start: float32 ``(C, n)``, near to the thresholds.

    >>> thresholds(torch.round, torch.tensor([1.0, 2.0]), torch.tensor([[0.5, 1.5]]))
    tensor([[0.5000, 1.5000]])
    """
    found, up, down = start, torch.full_like(start, torch.inf), torch.full_like(start, -torch.inf)
    while True:
        lower = torch.nextafter(found, down)
        reached, reached_before = rounding(found) >= levels, rounding(lower) >= levels
        if bool(torch.all(reached & ~reached_before)):
            return found
        found = torch.where(reached_before, lower, torch.where(reached, found, torch.nextafter(found, up)))


def of_integers(quantizer: Quantizer) -> Tensor:
    """The thresholds of ``quant::int``, ``(1, n)`` per tensor and ``(C, n)`` per channel, for its ``n + 1`` levels."""
    low, high, levels = _levels(quantizer)
    scale = _column(quantizer.scale)

    def rounding(x: Tensor) -> Tensor:
        return quantize_levels(x, scale, 0, low, high, quantizer.rounding_mode)

    return thresholds(rounding, levels, (levels - 0.5) * scale)


def of_ternary(quantizer: Quantizer, node: fx.Node) -> Tensor:
    """The two thresholds of ``quant::ternary``, ``−θ·s`` and just above ``θ·s``."""
    scale, share = _column(quantizer.scale), float(node.kwargs["threshold"])  # type: ignore[arg-type]
    levels = torch.tensor([0.0, 1.0])

    def rounding(x: Tensor) -> Tensor:
        return torch.sign(x) * (x.abs() > share * scale).to(x.dtype)

    return thresholds(rounding, levels, (2 * levels - 1) * share * scale)


def of_truncation(program: Program, quantizer: Quantizer, node: fx.Node) -> Tensor:
    """The thresholds of ``quant::trunc``, ``(1, n)`` per tensor and ``(C, n)`` per channel."""
    low, high, levels = _levels(quantizer)
    scale = _column(program.constant(node.args[1]))
    dropped = torch.exp2(torch.round(torch.log2(_column(quantizer.scale) / scale)))

    def rounding(x: Tensor) -> Tensor:
        return quantize_levels(torch.round(x / scale), dropped, 0, low, high, quantizer.rounding_mode)

    return thresholds(rounding, levels, (levels * dropped - 0.5) * scale)


def _levels(quantizer: Quantizer) -> tuple[float, float, Tensor]:
    """The smallest and the largest level, and all above the smallest."""
    assert quantizer.bit_width is not None  # constant, as the check has found
    low, high = integer_range(quantizer.bit_width, signed=quantizer.signed, narrow_range=quantizer.narrow_range)
    return low, high, torch.arange(low + 1, high + 1, dtype=torch.float32)


def _column(scale: Tensor | None) -> Tensor:
    assert scale is not None  # as above
    return scale.detach().to(torch.float32).reshape(-1, 1)
