"""The kernels that find what a scale is made of, and collect it."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from quant_core.native.binding import MODES, Binding, Bounds, blocks_of


class SearchingKernels(Binding):
    """All tensors are float32 on the CPU, and dense in one and the same order."""

    most_ranked = 128  # as in statistics.c

    _largest: Any
    _gradient_of_largest: Any
    _by_largest: Any
    _gradient_by_largest: Any
    _nth_largest: Any
    _add_at_element: Any
    _follow: Any

    def largest(self, rows: Tensor) -> Tensor:
        """``max |x|`` of each row: ``(R, n)`` → ``(R,)``; NaN where there is one."""
        out = rows.new_empty(rows.shape[0])
        self._largest(rows.data_ptr(), *rows.shape, out.data_ptr(), torch.get_num_threads())
        return out

    def gradient_of_largest(self, rows: Tensor, largest: Tensor, g: Tensor) -> Tensor:
        """The gradient of :meth:`largest`, shared evenly by the elements that have the largest absolute value."""
        out = torch.empty_like(rows)
        self._gradient_of_largest(
            rows.data_ptr(),
            *rows.shape,
            largest.data_ptr(),
            g.data_ptr(),
            out.data_ptr(),
            torch.get_num_threads(),
        )
        return out

    def by_largest(
        self, x: Tensor, scale: Tensor, minimum: float, bounds: Bounds, divisor: float, mode: str
    ) -> tuple[Tensor, Tensor]:
        """Fill ``scale`` with ``max(max |x|, minimum) / divisor``; it has one element, or one for each channel on the first axis.

        Returns:
            ``x`` on that scale, and ``max |x|`` for each element of it.
        """
        y, most = torch.empty_like(x), torch.empty_like(scale)
        self._by_largest(
            x.data_ptr(),
            y.data_ptr(),
            *_rows(x, scale),
            minimum,
            divisor,
            *bounds,
            MODES[mode],
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
        bounds: Bounds,
        divisor: float,
        mode: str,
    ) -> Tensor:
        """The gradient of :meth:`by_largest`, for that of the value and that of the scale, of which one may be missing."""
        out, for_scale = torch.empty_like(x), torch.empty_like(scale)
        rows, inner = _rows(x, scale)
        partials = x.new_empty(blocks_of((1, rows, inner)), dtype=torch.float64)
        self._gradient_by_largest(
            None if g is None else g.data_ptr(),
            None if of_scale is None else of_scale.data_ptr(),
            x.data_ptr(),
            rows,
            inner,
            scale.data_ptr(),
            most.data_ptr(),
            divisor,
            *bounds,
            MODES[mode],
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
        index: int = self._nth_largest(
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
        self._add_at_element(
            gx.data_ptr(),
            index,
            element,
            None if sums is None else sums.data_ptr(),
            None if of_scale is None else of_scale.data_ptr(),
            divisor,
        )

    def follow(self, average: Tensor, statistic: Tensor, count: int, momentum: float | None) -> None:
        """``average ← (1 − m)·average + m·statistic`` after ``count`` steps; the mean of all where ``m`` is ``None``."""
        self._follow(
            average.data_ptr(),
            statistic.data_ptr(),
            average.numel(),
            count,
            -1.0 if momentum is None else momentum,
        )


def _rows(x: Tensor, scale: Tensor) -> tuple[int, int]:
    rows = scale.numel()
    return rows, x.numel() // rows
