"""The kernels that quantize at a given scale, or at a given threshold."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from quant_core.native.binding import MODES, Binding, Bounds, Grain, blocks_of


class QuantizingKernels(Binding):
    """All tensors are float32 on the CPU, and dense in one and the same order."""

    modes = frozenset(MODES)

    _quantize: Any
    _gradient: Any
    _gradient_of_scale: Any
    _by_threshold: Any
    _gradient_by_threshold: Any

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
        self._quantize(
            x.data_ptr(),
            y.data_ptr(),
            None if code is None else code.data_ptr(),
            *grain,
            scale.data_ptr(),
            None if zero_point is None else zero_point.data_ptr(),
            *bounds,
            rectify,
            MODES[mode],
            torch.get_num_threads(),
        )
        return y, code

    def gradient(
        self, g: Tensor, code: Tensor, zero_point: Tensor | None, grain: Grain, bounds: Bounds
    ) -> tuple[Tensor, Tensor]:
        """The gradient of ``x``; and ``(3, channels)``: that of the scale, the sums of ``g`` above and below the range."""
        grad_x = torch.empty_like(g)
        sums = g.new_empty(3, grain[1])
        partials = g.new_empty(3 * blocks_of(grain), dtype=torch.float64)
        start, row = sums.data_ptr(), 4 * grain[1]
        self._gradient(
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
        partials = g.new_empty(blocks_of(grain), dtype=torch.float64)
        self._gradient_of_scale(
            g.data_ptr(),
            x.data_ptr(),
            *grain,
            scale.data_ptr(),
            None if zero_point is None else zero_point.data_ptr(),
            *bounds,
            MODES[mode],
            partials.data_ptr(),
            out.data_ptr(),
            torch.get_num_threads(),
        )
        return out

    def by_threshold(
        self,
        x: Tensor,
        parameter: Tensor,
        grain: Grain,
        minimum: float,
        bounds: Bounds,
        divisor: float,
        mode: str,
        *,
        rectify: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """``x`` on the scale ``max(|parameter|, minimum) / divisor``, that scale, and what the gradient needs."""
        y, code, scale = torch.empty_like(x), torch.empty_like(x, dtype=torch.int16), torch.empty_like(parameter)
        self._by_threshold(
            x.data_ptr(),
            y.data_ptr(),
            code.data_ptr(),
            *grain,
            parameter.data_ptr(),
            minimum,
            divisor,
            *bounds,
            rectify,
            MODES[mode],
            scale.data_ptr(),
            torch.get_num_threads(),
        )
        return y, scale, code

    def gradient_by_threshold(
        self,
        g: Tensor | None,
        of_scale: Tensor | None,
        code: Tensor,
        parameter: Tensor,
        grain: Grain,
        divisor: float,
        bounds: Bounds,
    ) -> tuple[Tensor | None, Tensor]:
        """The gradients of :meth:`by_threshold`, for those of the value and of the scale, of which one may be missing."""
        grad_x = None if g is None else torch.empty_like(g)
        for_parameter, blocks = torch.empty_like(parameter), 3 * blocks_of(grain)
        room = parameter.new_empty(
            blocks + 2 * grain[1], dtype=torch.float64
        )  # partial sums, and three sums in float32
        self._gradient_by_threshold(
            None if g is None else g.data_ptr(),
            None if of_scale is None else of_scale.data_ptr(),
            code.data_ptr(),
            None if grad_x is None else grad_x.data_ptr(),
            *grain,
            parameter.data_ptr(),
            divisor,
            *bounds,
            room.data_ptr(),
            room.data_ptr() + 8 * blocks,
            for_parameter.data_ptr(),
            torch.get_num_threads(),
        )
        return grad_x, for_parameter
