"""The compiled kernels as functions of tensors."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from quant_core.native.signatures import functions_of

SOURCES: Final = ("quant_core.native", "kernels", "statistics")
"""The package and the C files that hold them."""

_BLOCK = 4096  # as in kernels.c
_MODES = {"ROUND": 0, "HALF_UP": 1, "FLOOR": 2, "CEIL": 3, "TO_ZERO": 4}

Grain = tuple[int, int, int]
"""``(outer, channels, inner)``: how a tensor is seen whose channels have a scale each."""


Bounds = tuple[float, float]
"""The smallest and the largest integer."""


class Kernels:
    """The kernels of one shared library; all tensors are float32 on the CPU, and dense in one and the same order.

    Args:
        path: the shared library.
    """

    modes = frozenset(_MODES)
    most_ranked = 128  # as in statistics.c

    def __init__(self, path: Path) -> None:
        for name, function in functions_of(path).items():
            setattr(self, f"_{name}", function)

    def quantize(
        self,
        x: Tensor,
        scale: Tensor,
        zero_point: Tensor | None,
        grain: Grain,
        bounds: Bounds,
        mode: str,
        *,
        rectify: bool,
        keep: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """``(clamp(round(x / scale + zero_point), low, high) − zero_point) · scale``, and what :meth:`gradient` needs."""
        y = torch.empty_like(x)
        code = torch.empty_like(x, dtype=torch.int16) if keep else None
        self._quantize(  # type: ignore[attr-defined]
            x.data_ptr(),
            y.data_ptr(),
            None if code is None else code.data_ptr(),
            *grain,
            scale.data_ptr(),
            None if zero_point is None else zero_point.data_ptr(),
            *bounds,
            rectify,
            _MODES[mode],
            torch.get_num_threads(),
        )
        return y, code

    def gradient(
        self, g: Tensor, code: Tensor, zero_point: Tensor | None, grain: Grain, bounds: Bounds
    ) -> tuple[Tensor, Tensor]:
        """The gradient of ``x``; and ``(3, channels)``: that of the scale, the sums of ``g`` above and below the range."""
        grad_x = torch.empty_like(g)
        sums = g.new_empty(3, grain[1])
        partials = torch.empty(3 * _blocks(grain), dtype=torch.float64)
        start, row = sums.data_ptr(), 4 * grain[1]
        self._gradient(  # type: ignore[attr-defined]
            g.data_ptr(),
            code.data_ptr(),
            grad_x.data_ptr(),
            *grain,
            None if zero_point is None else zero_point.data_ptr(),
            *bounds,
            partials.data_ptr(),
            start,
            start + row,
            start + 2 * row,
            torch.get_num_threads(),
        )
        return grad_x, sums

    def gradient_of_scale(
        self,
        g: Tensor,
        x: Tensor,
        scale: Tensor,
        zero_point: Tensor | None,
        grain: Grain,
        bounds: Bounds,
        mode: str,
    ) -> Tensor:
        """``Σ g·(c − v)`` for each channel, where the gradient of ``x`` passes the clamp."""
        out = g.new_empty(grain[1])
        partials = torch.empty(_blocks(grain), dtype=torch.float64)
        self._gradient_of_scale(  # type: ignore[attr-defined]
            g.data_ptr(),
            x.data_ptr(),
            *grain,
            scale.data_ptr(),
            None if zero_point is None else zero_point.data_ptr(),
            *bounds,
            _MODES[mode],
            partials.data_ptr(),
            out.data_ptr(),
            torch.get_num_threads(),
        )
        return out

    def largest(self, rows: Tensor) -> Tensor:
        """``max |x|`` of each row: ``(R, n)`` → ``(R,)``; NaN where there is one."""
        out = rows.new_empty(rows.shape[0])
        self._largest(rows.data_ptr(), *rows.shape, out.data_ptr(), torch.get_num_threads())  # type: ignore[attr-defined]
        return out

    def gradient_of_largest(self, rows: Tensor, largest: Tensor, g: Tensor) -> Tensor:
        """The gradient of :meth:`largest`, shared evenly by the elements that have the largest absolute value."""
        out = torch.empty_like(rows)
        self._gradient_of_largest(  # type: ignore[attr-defined]
            rows.data_ptr(),
            *rows.shape,
            largest.data_ptr(),
            g.data_ptr(),
            out.data_ptr(),
            torch.get_num_threads(),
        )
        return out

    def by_largest(
        self, x: Tensor, scale: Tensor, minimum: float, divisor: float, bounds: Bounds, mode: str
    ) -> tuple[Tensor, Tensor]:
        """Fill ``scale`` with ``max(max |x|, minimum) / divisor``; it has one element, or one for each channel on the first axis.

        Returns:
            ``x`` on that scale, and ``max |x|`` for each element of it.
        """
        y, most = torch.empty_like(x), torch.empty_like(scale)
        self._by_largest(  # type: ignore[attr-defined]
            x.data_ptr(),
            y.data_ptr(),
            *_rows(x, scale),
            minimum,
            divisor,
            *bounds,
            _MODES[mode],
            most.data_ptr(),
            scale.data_ptr(),
            torch.get_num_threads(),
        )
        return y, most

    def gradient_by_largest(
        self,
        g: Tensor | None,
        of_scale: Tensor | None,
        x: Tensor,
        scale: Tensor,
        most: Tensor,
        divisor: float,
        bounds: Bounds,
        mode: str,
    ) -> Tensor:
        """The gradient of :meth:`by_largest`, for that of the value and that of the scale, of which one may be missing."""
        out, for_scale = torch.empty_like(x), torch.empty_like(scale)
        rows, inner = _rows(x, scale)
        partials = torch.empty(_blocks((1, rows, inner)), dtype=torch.float64)
        self._gradient_by_largest(  # type: ignore[attr-defined]
            None if g is None else g.data_ptr(),
            None if of_scale is None else of_scale.data_ptr(),
            x.data_ptr(),
            rows,
            inner,
            scale.data_ptr(),
            most.data_ptr(),
            divisor,
            *bounds,
            _MODES[mode],
            partials.data_ptr(),
            for_scale.data_ptr(),
            out.data_ptr(),
            torch.get_num_threads(),
        )
        return out

    def nth_largest(
        self, x: Tensor, nth: int, threshold: Tensor, scale: Tensor, minimum: float, divisor: float, *, rectify: bool
    ) -> tuple[int, float]:
        """Fill ``threshold`` with the larger of the ``nth`` largest ``|x|`` and ``minimum``, ``scale`` with a part of it.

        Args:
            nth: from 1 to ``most_ranked``, and not more than there are elements.
            rectify: rank ``max(x, 0)``.

        Returns:
            Where the element stands in memory, and its value; of equal ones the first is the largest.
        """
        element = ctypes.c_float()
        index: int = self._nth_largest(  # type: ignore[attr-defined]
            x.data_ptr(),
            x.numel(),
            nth,
            rectify,
            minimum,
            divisor,
            ctypes.byref(element),
            threshold.data_ptr(),
            scale.data_ptr(),
            torch.get_num_threads(),
        )
        return index, element.value

    def add_at_element(
        self, gx: Tensor, index: int, element: float, sums: Tensor | None, of_scale: Tensor | None, divisor: float
    ) -> None:
        """Add to ``gx`` the gradient of a scale that :meth:`nth_largest` made: what :meth:`gradient` summed up, and its own."""
        self._add_at_element(  # type: ignore[attr-defined]
            gx.data_ptr(),
            index,
            element,
            None if sums is None else sums.data_ptr(),
            None if of_scale is None else of_scale.data_ptr(),
            divisor,
        )

    def follow(self, average: Tensor, statistic: Tensor, count: int, momentum: float | None) -> None:
        """``average ← (1 − m)·average + m·statistic`` after ``count`` steps; the mean of all where ``m`` is ``None``."""
        self._follow(  # type: ignore[attr-defined]
            average.data_ptr(),
            statistic.data_ptr(),
            average.numel(),
            count,
            -1.0 if momentum is None else momentum,
        )


def _rows(x: Tensor, scale: Tensor) -> tuple[int, int]:
    rows = scale.numel()
    return rows, x.numel() // rows


def _blocks(grain: Grain) -> int:
    outer, channels, inner = grain
    return outer * channels * -(-inner // _BLOCK)
