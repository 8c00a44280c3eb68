"""Quantized transposed convolutions in one, two and three dimensions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quant_core.quant import Int8WeightPerTensorFloat
from quant_core.tensor import QuantTensor
from quant_nn.convolution import QuantSpatialLayer
from quant_nn.quantizers import Quantizer

_OPERATIONS: tuple[Any, ...] = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


class QuantConvTranspose(QuantSpatialLayer):
    """What the three transposed convolutions share: ``y = Q_out(Q_in(x) ∗ᵀ Q_w(W) + Q_b(b))``.

    An output element adds up only those taps of the kernel that meet an input element there: along an axis with stride ``s``
    and dilation ``d``, at most ``⌈k / (s / gcd(s, d))⌉`` of ``k``.

    Args:
        in_channels: the number ``C`` of input channels.
        out_channels: the number ``O`` of output channels.
        kernel_size: the size of the kernel, one number or one for each axis.
        stride: the stride.
        padding: how much is cut off the full result at both ends.
        output_padding: how much is added to one end of the output.
        groups: the number of groups.
        bias: whether there is a bias.
        dilation: the dilation.
        padding_mode: ``"zeros"``; torch has no other.
        weight_quant: quantizer of the ``(C, O / groups, …)`` weight, or the proxy of another layer to share, or ``None``. Per
            channel it has ``O / groups`` scales, one for the channels of the same place in each group.
        bias_quant: quantizer of the ``(O,)`` bias.
        input_quant: quantizer of the input.
        output_quant: quantizer of the output.
        return_quant_tensor: return a ``QuantTensor`` (with its scale) instead of a plain tensor.
        device: where the parameters live.
        dtype: their float dtype.
        **options: options of the quantizers, with the prefix ``weight_``, ``bias_``, ``input_`` or ``output_``.

    Raises:
        UnusedAttributeError: for an option that nothing reads.
        InputError: from ``forward``, when the input does not fit or a quantized bias has no scale.

    The keys of its ``state_dict`` for weight and bias are those of the float layer, whose checkpoints load strictly.
    """

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    output_channel_dim = 1

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] = 0,
        output_padding: int | tuple[int, ...] = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | tuple[int, ...] = 1,
        padding_mode: str = "zeros",
        weight_quant: Quantizer = Int8WeightPerTensorFloat,
        bias_quant: Quantizer = None,
        input_quant: Quantizer = None,
        output_quant: Quantizer = None,
        return_quant_tensor: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        shape = (in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, bias, dilation)
        super().__init__(*shape, padding_mode, device=device, dtype=dtype)  # the float layer comes next
        self._init_quant(weight_quant, bias_quant, input_quant, output_quant, return_quant_tensor, options)

    def forward(self, input: Tensor | QuantTensor, output_size: Sequence[int] | None = None) -> Tensor | QuantTensor:
        """Quantize, compute, quantize.

        Args:
            input: float tensor or ``QuantTensor``, ``(N, C, …)`` or ``(C, …)``.
            output_size: the size of the output, where the stride allows for several; in place of ``output_padding``.

        Raises:
            InputError: when the input does not fit the layer, or a quantized bias has no scale.
        """
        return self._compute(input, output_size=output_size)

    def _operation(self, x: Tensor, weight: Tensor, bias: Tensor | None, **how: Any) -> Tensor:
        axes, output_padding = len(self.spatial_axes), self._output_padding_for(x, how["output_size"])
        shape = (self.stride, self.padding, output_padding, self.groups, self.dilation)
        out: Tensor = _OPERATIONS[axes - 1](x, weight, bias, *shape)
        return out

    def _output_padding_for(self, x: Tensor, output_size: Sequence[int] | None) -> Any:
        own: Any = self
        axes = len(self.spatial_axes)
        shape = (self.stride, self.padding, self.kernel_size, axes, self.dilation)
        return own._output_padding(x, None if output_size is None else list(output_size), *shape)

    def _accumulator_scale(self, x: Tensor | QuantTensor, weight: Tensor | QuantTensor) -> Tensor | None:
        scale = super()._accumulator_scale(x, weight)
        return scale if scale is None or scale.dim() == 0 else scale.repeat(self.groups)

    def _terms(self) -> int:
        taps = math.prod([-(-k // step) for k, step in zip(self.kernel_size, self._steps(), strict=True)])
        return self.in_channels // self.groups * taps

    def _rows(self, weight: Tensor) -> Tensor:
        """One row for each output channel and each set of taps that meet in one output element."""
        by_group = weight.unflatten(0, (self.groups, -1)).transpose(1, 2).flatten(0, 1)  # (O, C / groups, …)
        rows = []
        for start in itertools.product(*(range(step) for step in self._steps())):
            taps = by_group
            for axis, (first, step) in enumerate(zip(start, self._steps(), strict=True)):
                taps = taps[(slice(None),) * (axis + 2) + (slice(first, None, step),)]
            rows.append(taps.flatten(1))
        widest = max(row.shape[1] for row in rows)
        return torch.cat([F.pad(row, (0, widest - row.shape[1])) for row in rows])

    def _steps(self) -> list[int]:
        """Every how many taps of the kernel meet in one output element, along each axis."""
        return [s // math.gcd(s, d) for s, d in zip(self.stride, self.dilation, strict=True)]


class QuantConvTranspose1d(QuantConvTranspose, nn.ConvTranspose1d):  # type: ignore[misc]  # takes quantized tensors
    """:class:`torch.nn.ConvTranspose1d` with quantized operands; arguments as :class:`QuantConvTranspose`.

    >>> QuantConvTranspose1d(3, 8, 4, stride=2, weight_bit_width=4)(torch.zeros(2, 3, 16)).shape
    torch.Size([2, 8, 34])
    """

    spatial_axes = ("L",)


class QuantConvTranspose2d(QuantConvTranspose, nn.ConvTranspose2d):  # type: ignore[misc]  # takes quantized tensors
    """:class:`torch.nn.ConvTranspose2d` with quantized operands; arguments as :class:`QuantConvTranspose`.

    >>> QuantConvTranspose2d(6, 1, 5, weight_bit_width=4)(torch.zeros(2, 6, 24, 24)).shape
    torch.Size([2, 1, 28, 28])
    """

    spatial_axes = ("H", "W")


class QuantConvTranspose3d(QuantConvTranspose, nn.ConvTranspose3d):  # type: ignore[misc]  # takes quantized tensors
    """:class:`torch.nn.ConvTranspose3d` with quantized operands; arguments as :class:`QuantConvTranspose`.

    >>> QuantConvTranspose3d(4, 1, 3, weight_bit_width=4)(torch.zeros(2, 4, 6, 6, 6)).shape
    torch.Size([2, 1, 8, 8, 8])
    """

    spatial_axes = ("D", "H", "W")
