"""Average pools whose result is quantized again, for targets that round what every operation gives."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from quant_core.proxies import QuantProxy
from quant_core.quant import Int8ActPerTensorFloat
from quant_core.tensor import QuantTensor
from quant_nn.layer import QuantLayer
from quant_nn.options import split_options
from quant_nn.quantizers import Quantizer, build_proxy


class QuantAveraging(QuantLayer):
    """Mixin for ``y = Q_out(mean of windows of x)``; the float layer comes after it among the bases."""

    output_quant: QuantProxy | None

    def _init_quant(self, output_quant: Quantizer, return_quant_tensor: bool, options: dict[str, Any]) -> None:
        found = split_options(type(self), options, {"output_": output_quant})
        self.return_quant_tensor = return_quant_tensor
        self.output_quant = build_proxy(self, output_quant, "output_", found["output_"])

    def forward(self, input: Tensor | QuantTensor) -> Tensor | QuantTensor:
        """Float tensor or ``QuantTensor``, ``(N, C, H, W)`` or ``(C, H, W)``."""
        out: Tensor | QuantTensor = super().forward(input)
        return self._hand_on(out if self.output_quant is None else self.output_quant(out))


class QuantAvgPool2d(QuantAveraging, nn.AvgPool2d):  # type: ignore[misc]  # takes quantized tensors as well
    """:class:`torch.nn.AvgPool2d` whose result is quantized.

    Args:
        kernel_size: the size of the window.
        stride: the distance of windows; ``kernel_size`` by default.
        padding: how many zeros are added at the edges.
        ceil_mode: let the last window reach beyond the edge.
        count_include_pad: count the zeros at the edges.
        divisor_override: divide by this number instead of that of the elements.
        output_quant: quantizer of the result.
        return_quant_tensor: return a ``QuantTensor``.
        **options: options of the quantizer, with the prefix ``output_``.

    >>> import torch
    >>> QuantAvgPool2d(2, output_bit_width=4)(torch.ones(1, 1, 4, 4)).shape
    torch.Size([1, 1, 2, 2])
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
        output_quant: Quantizer = Int8ActPerTensorFloat,
        return_quant_tensor: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
        self._init_quant(output_quant, return_quant_tensor, options)


class QuantAdaptiveAvgPool2d(QuantAveraging, nn.AdaptiveAvgPool2d):  # type: ignore[misc]  # as above
    """:class:`torch.nn.AdaptiveAvgPool2d` whose result is quantized.

    Args:
        output_size: the size of the output.
        output_quant: quantizer of the result.
        return_quant_tensor: return a ``QuantTensor``.
        **options: options of the quantizer, with the prefix ``output_``.

    >>> import torch
    >>> QuantAdaptiveAvgPool2d(1, output_bit_width=4)(torch.ones(1, 1, 4, 4)).shape
    torch.Size([1, 1, 1, 1])
    """

    def __init__(
        self,
        output_size: int | tuple[int | None, int | None],
        output_quant: Quantizer = Int8ActPerTensorFloat,
        return_quant_tensor: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(output_size)
        self._init_quant(output_quant, return_quant_tensor, options)
