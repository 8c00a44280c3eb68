"""A factor and an offset for each channel, in float and quantized, and what becomes of a batch normalization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from quant_core.errors import ConfigurationError, InputError
from quant_core.quant import Int8WeightPerTensorFloat
from quant_nn.quantizers import Quantizer
from quant_nn.weight_layer import QuantWeightLayer

_IMAGES = (1, -1, 1, 1)


class ScaleBias(nn.Module):
    """``y = x · w + b`` with one ``w`` and one ``b`` for each channel: a batch normalization without statistics.

    Args:
        num_features: the number ``C`` of channels.
        bias: whether there is an offset.
        runtime_shape: the shape of ``w`` and ``b`` beside the input, with ``−1`` at the axis of the channels.
        device: where the parameters live.
        dtype: their float dtype.

    Raises:
        ConfigurationError: when ``runtime_shape`` does not say where the channels are.

    ``w`` starts with ones, ``b`` with zeros; both have shape ``(C,)``.

    >>> ScaleBias(3, bias=True)(torch.ones(2, 3, 4, 4)).shape
    torch.Size([2, 3, 4, 4])
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        num_features: int,
        bias: bool,
        runtime_shape: Sequence[int] = _IMAGES,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        shape = tuple(runtime_shape)
        if [size for size in shape if size != 1] != [-1]:
            raise ConfigurationError(
                f"runtime_shape={shape} does not say where the channels are",
                where=type(self).__name__,
                why="it is 1 along every axis and -1 along that of the channels",
                fix="Use (1, -1, 1, 1) for images, (1, -1) after a linear layer.",
            )
        self.num_features = num_features
        self.runtime_shape = shape
        self.weight = nn.Parameter(torch.ones(num_features, device=device, dtype=dtype))
        self.register_parameter(
            "bias", nn.Parameter(torch.zeros(num_features, device=device, dtype=dtype)) if bias else None
        )

    def forward(self, input: Tensor) -> Tensor:
        """Float tensor of as many axes as ``runtime_shape``; returns the same shape."""
        return scaled(input, self.weight, self.bias, self.runtime_shape)

    def extra_repr(self) -> str:
        """The options."""
        return f"{self.num_features}, bias={self.bias is not None}, runtime_shape={self.runtime_shape}"


class QuantScaleBias(QuantWeightLayer, ScaleBias):  # type: ignore[misc]  # forward takes quantized tensors as well
    """``y = Q_out(Q_in(x) · Q_w(w) + Q_b(b))``: :class:`ScaleBias` with quantized operands.

    Args:
        num_features: the number ``C`` of channels.
        bias: whether there is an offset.
        weight_quant: quantizer of the ``(C,)`` factors, or the proxy of another layer to share, or ``None``.
        bias_quant: quantizer of the ``(C,)`` offsets.
        input_quant: quantizer of the input.
        output_quant: quantizer of the output.
        runtime_shape: the shape of factors and offsets beside the input, with ``−1`` at the axis of the channels.
        return_quant_tensor: return a ``QuantTensor`` (with its scale) instead of a plain tensor.
        device: where the parameters live.
        dtype: their float dtype.
        **options: options of the quantizers, with the prefix ``weight_``, ``bias_``, ``input_`` or ``output_``.

    Raises:
        UnusedAttributeError: for an option that nothing reads.
        InputError: from ``forward``, when the input does not fit or a quantized bias has no scale.

    >>> layer = QuantScaleBias(3, bias=True, weight_bit_width=4)
    >>> layer(torch.ones(2, 3, 4, 4)).shape
    torch.Size([2, 3, 4, 4])
    """

    def __init__(
        self,
        num_features: int,
        bias: bool,
        weight_quant: Quantizer = Int8WeightPerTensorFloat,
        bias_quant: Quantizer = None,
        input_quant: Quantizer = None,
        output_quant: Quantizer = None,
        runtime_shape: Sequence[int] = _IMAGES,
        return_quant_tensor: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        ScaleBias.__init__(self, num_features, bias, runtime_shape, device, dtype)
        self._init_quant(weight_quant, bias_quant, input_quant, output_quant, return_quant_tensor, options)

    def _operation(self, x: Tensor, weight: Tensor, bias: Tensor | None, **how: Any) -> Tensor:
        return scaled(x, weight, bias, self._channel_shape(x))

    def _check_input(self, shape: torch.Size) -> None:
        runtime_shape = self._shape_beside(len(shape))
        axis = runtime_shape.index(-1) if -1 in runtime_shape else None
        if len(shape) != len(runtime_shape) or axis is None or shape[axis] != self.num_features:
            raise InputError(
                f"an input of shape {tuple(shape)} does not fit this layer",
                where=self._named(),
                why=f"it has as many axes as {runtime_shape}, and num_features={self.num_features} at the place of -1",
                fix="Check the order of the axes, or set runtime_shape.",
            )

    def _channel_shape(self, out: Tensor) -> tuple[int, ...]:
        return tuple(self.num_features if size == -1 else size for size in self._shape_beside(out.dim()))

    def _shape_beside(self, axes: int) -> tuple[int, ...]:
        """``runtime_shape`` for an input with so many axes."""
        return self.runtime_shape

    def _rows(self, weight: Tensor) -> Tensor:
        return weight.unsqueeze(1)

    def _terms(self) -> int:
        return 1


def scaled(x: Tensor, weight: Tensor, bias: Tensor | None, shape: Sequence[int]) -> Tensor:
    """``x · w + b`` with ``w`` and ``b`` in a shape that broadcasts to ``x``.

    >>> scaled(torch.ones(1, 2), torch.tensor([2.0, 3.0]), None, (1, -1))
    tensor([[2., 3.]])
    """
    out = x * weight.reshape(tuple(shape))
    return out if bias is None else out + bias.reshape(tuple(shape))
