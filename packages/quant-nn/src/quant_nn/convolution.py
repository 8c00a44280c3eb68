"""Quantized convolutions in one, two and three dimensions."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from quant_core.errors import InputError
from quant_core.quant import Int8WeightPerTensorFloat
from quant_nn.quantizers import Quantizer
from quant_nn.weight_layer import QuantWeightLayer

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


class QuantSpatialLayer(QuantWeightLayer):
    """What convolutions and transposed ones share: an input ``(N, C, …)`` with axes in space.

    Attributes:
        spatial_axes: the names of these axes.
    """

    in_channels: int
    out_channels: int
    spatial_axes: tuple[str, ...]

    def _check_input(self, shape: torch.Size) -> None:
        axis = len(shape) - len(self.spatial_axes) - 1
        if axis not in (0, 1) or shape[axis] != self.in_channels:
            axes = ", ".join(self.spatial_axes)
            raise InputError(
                f"an input of shape {tuple(shape)} does not fit this layer",
                where=self._named(),
                why=f"it takes (N, C, {axes}) or (C, {axes}), with C = in_channels = {self.in_channels}",
                fix="Check the order of the axes, and the number of channels that the layer before it gives.",
            )

    def _channel_shape(self, out: Tensor) -> tuple[int, ...]:
        spatial = [1] * len(self.spatial_axes)
        return (*[1] * (out.dim() - len(spatial) - 1), self.out_channels, *spatial)


class QuantConv(QuantSpatialLayer):
    """What the three convolutions share: ``y = Q_out(Q_in(x) ∗ Q_w(W) + Q_b(b))``.

    Args:
        in_channels: the number ``C`` of input channels.
        out_channels: the number ``O`` of output channels.
        kernel_size: the size of the kernel, one number or one for each axis.
        stride: the stride.
        padding: the padding, or ``"same"`` or ``"valid"``; zeros are exact on every grid.
        dilation: the dilation.
        groups: the number of groups; ``C`` for a depthwise convolution.
        bias: whether there is a bias.
        padding_mode: ``"zeros"``, ``"reflect"``, ``"replicate"`` or ``"circular"``.
        weight_quant: quantizer of the weight, or the proxy of another layer to share, or ``None``.
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

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] | str = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        weight_quant: Quantizer = Int8WeightPerTensorFloat,
        bias_quant: Quantizer = None,
        input_quant: Quantizer = None,
        output_quant: Quantizer = None,
        return_quant_tensor: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        shape = (in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode)
        super().__init__(*shape, device=device, dtype=dtype)  # the float convolution comes next in the order of bases
        self._init_quant(weight_quant, bias_quant, input_quant, output_quant, return_quant_tensor, options)

    def _operation(self, x: Tensor, weight: Tensor, bias: Tensor | None, **how: Any) -> Tensor:
        convolve: Any = self._conv_forward  # of the float convolution
        out: Tensor = convolve(x, weight, bias)
        return out


class QuantConv1d(QuantConv, nn.Conv1d):  # type: ignore[misc]  # forward takes quantized tensors as well
    """:class:`torch.nn.Conv1d` with quantized operands; arguments as :class:`QuantConv`.

    >>> QuantConv1d(3, 8, 5, weight_bit_width=4)(torch.zeros(2, 3, 16)).shape
    torch.Size([2, 8, 12])
    """

    spatial_axes = ("L",)


class QuantConv2d(QuantConv, nn.Conv2d):  # type: ignore[misc]  # forward takes quantized tensors as well
    """:class:`torch.nn.Conv2d` with quantized operands; arguments as :class:`QuantConv`.

    >>> QuantConv2d(1, 6, 5, weight_bit_width=4)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 6, 24, 24])
    """

    spatial_axes = ("H", "W")


class QuantConv3d(QuantConv, nn.Conv3d):  # type: ignore[misc]  # forward takes quantized tensors as well
    """:class:`torch.nn.Conv3d` with quantized operands; arguments as :class:`QuantConv`.

    >>> QuantConv3d(1, 4, 3, weight_bit_width=4)(torch.zeros(2, 1, 8, 8, 8)).shape
    torch.Size([2, 4, 6, 6, 6])
    """

    spatial_axes = ("D", "H", "W")
