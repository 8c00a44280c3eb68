"""Upsampling that stays on the grid of what comes in."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from quant_core.errors import ConfigurationError
from quant_core.ops import quantize_float, quantize_int
from quant_core.tensor import QuantTensor
from quant_nn.layer import QuantLayer

Size = int | tuple[int, ...] | None
Factor = float | tuple[float, ...] | None


class QuantUpsample(QuantLayer, nn.Upsample):
    """:class:`torch.nn.Upsample` that hands on quantized tensors, on the grid of the input.

    Mode ``nearest`` copies elements. Other modes compute values between the levels; these are rounded to the nearest level, and
    clamped to the range, as the quantizer of the input does it. Where 0 is no level (binary values) they are a plain tensor.

    Args:
        size: the size of the output along the axes in space.
        scale_factor: the factor between the two sizes, in place of ``size``.
        mode: ``"nearest"``, ``"linear"``, ``"bilinear"``, ``"bicubic"`` or ``"trilinear"``.
        align_corners: whether the elements in the corners keep their value; not with mode ``nearest``.
        recompute_scale_factor: compute the factor again from the rounded size.
        return_quant_tensor: return a ``QuantTensor`` where one comes in.

    Gradient: that of the interpolation, straight through the rounding, and zero where a value is clamped.

    Raises:
        ConfigurationError: when not one of ``size`` and ``scale_factor`` is given.

    >>> import torch
    >>> QuantUpsample(scale_factor=2)(torch.ones(1, 1, 2, 2)).shape
    torch.Size([1, 1, 4, 4])
    """

    def __init__(
        self,
        size: Size = None,
        scale_factor: Factor = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
        return_quant_tensor: bool = True,
    ) -> None:
        if (size is None) == (scale_factor is None):
            raise ConfigurationError(
                f"size={size!r} and scale_factor={scale_factor!r} do not say how large the output is",
                where=type(self).__name__,
                why="exactly one of them does",
                fix="Pass size=(H, W), or scale_factor=2.",
            )
        super().__init__(size, scale_factor, mode, align_corners, recompute_scale_factor)
        self.return_quant_tensor = return_quant_tensor

    def forward(self, input: Tensor | QuantTensor) -> Tensor | QuantTensor:  # type: ignore[override]
        """``(N, C, …)``, float or quantized, with the axes in space last; returns the same kind."""
        shape: dict[str, Any] = {"size": self.size, "scale_factor": self.scale_factor, "mode": self.mode}
        out: Any = F.interpolate(
            input,  # type: ignore[arg-type]  # by the rule of interpolate
            **shape,
            align_corners=self.align_corners,
            recompute_scale_factor=self.recompute_scale_factor,
        )
        if self.return_quant_tensor and isinstance(input, QuantTensor) and not isinstance(out, QuantTensor):
            out = _rounded(out, input) if input.zero_on_grid else out
        return self._hand_on(out)


def _rounded(value: Tensor, x: QuantTensor) -> QuantTensor:
    """A value between the levels of ``x``, on the nearest of them."""
    if x.float_format is not None:
        return x.replace(value=quantize_float(value, x.scale, x.float_format))
    on_grid = quantize_int(
        value,
        x.scale,
        0 if x.symmetric else x.zero_point,
        x.bit_width,
        signed=x.signed,
        narrow_range=x.narrow_range,
        rounding_mode="ROUND",
        clamp_gradient="masked",
    )
    return x.replace(value=on_grid)


class QuantUpsamplingNearest2d(QuantUpsample):
    """:class:`torch.nn.UpsamplingNearest2d` that hands on quantized tensors: each element is copied.

    >>> import torch
    >>> QuantUpsamplingNearest2d(scale_factor=2)(torch.tensor([[[[1.0, 2.0]]]]))
    tensor([[[[1., 1., 2., 2.],
              [1., 1., 2., 2.]]]])
    """

    def __init__(self, size: Size = None, scale_factor: Factor = None, return_quant_tensor: bool = True) -> None:
        super().__init__(size, scale_factor, "nearest", return_quant_tensor=return_quant_tensor)


class QuantUpsamplingBilinear2d(QuantUpsample):
    """:class:`torch.nn.UpsamplingBilinear2d` that hands on quantized tensors: rounded to the levels of the input.

    >>> import torch
    >>> QuantUpsamplingBilinear2d(size=(1, 3))(torch.tensor([[[[1.0, 2.0]]]]))
    tensor([[[[1.0000, 1.5000, 2.0000]]]])
    """

    def __init__(self, size: Size = None, scale_factor: Factor = None, return_quant_tensor: bool = True) -> None:
        super().__init__(size, scale_factor, "bilinear", True, return_quant_tensor=return_quant_tensor)
